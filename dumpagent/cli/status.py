"""Puts a daemon's metrics and its answers to HTTP probes on METRICS_PORT."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import MetricsServed
from dumpagent.probes.status_server import Page, StatusServer, listen
from dumpagent.secrets import hide
from dumpagent.settings import Metrics

WhyNot = Callable[[], str]  # empty: it is


def open_status(
    settings: Metrics,
    *,
    metrics: Callable[[], bytes],
    why_not_live: WhyNot,
    why_not_ready: WhyNot,
    tell: Tell,
) -> StatusServer:
    """Give the server of /metrics, /healthz and /readyz. Raises BadSettings when the port is taken."""
    pages = {
        "/metrics": lambda: Page(metrics(), content_type=CONTENT_TYPE_PLAIN_0_0_4),
        "/healthz": lambda: _probed(why_not_live()),
        "/readyz": lambda: _probed(why_not_ready()),
    }
    server = StatusServer(listen(settings.metrics_port, settings.metrics_address), pages)
    tell(MetricsServed(port=server.port, address=settings.metrics_address or None))
    return server


def _probed(why_not: str) -> Page:
    return Page(f"{hide(why_not)}\n".encode(errors="replace"), 503) if why_not else Page(b"ok\n")
