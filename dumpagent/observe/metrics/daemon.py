"""The metrics that both daemons have."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from prometheus_client import Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from dumpagent import __version__
from dumpagent.observe.events import Event
from dumpagent.observe.events.daemon import DrainBegan, DrainCut, DrainEnded

# Failures that last: what begins each, and what ends it. `dumpagent_trouble` is 1 in between.
_DRAINED = (DrainEnded, DrainCut)
Lasting = dict[str, tuple[tuple[type[Event], ...], tuple[type[Event], ...]]]


class DaemonMetrics:
    """What both daemons say of themselves; `mode` is mount or upload."""

    def __init__(
        self,
        mode: str,
        lasting: Lasting,
        monotonic: Callable[[], float],
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._monotonic = monotonic
        # A scrape reads while another thread counts: one lock keeps what belongs together together.
        self._lock = threading.RLock()
        about = self._gauge("dumpagent_build_info", "1; which dumpagent this is", ["mode", "version"])
        about.labels(mode, __version__).set(1)
        self._trouble = self._gauge(
            "dumpagent_trouble", "1 while this lasting trouble goes on, which the log explains", ["trouble"]
        )
        self._draining: Gauge | None = None
        if mode != "memory-watch":  # it has nothing to wait for
            self._draining = self._gauge(
                "dumpagent_draining", "1 after SIGTERM, while the daemon waits until dumps are stored"
            )
        self._began: dict[type[Event], str] = {}
        self._ended: dict[type[Event], str] = {}
        for name, (began, ended) in lasting.items():
            self._trouble.labels(name).set(0)
            self._began.update(dict.fromkeys(began, name))
            self._ended.update(dict.fromkeys(ended, name))

    def _gauge(self, name: str, meaning: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, meaning, tuple(labels), registry=self.registry)

    def _counter(self, name: str, meaning: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, meaning, tuple(labels), registry=self.registry)

    def add_process(self) -> None:
        """Tell CPU, memory and descriptors of this process too."""
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Give the whole text of /metrics."""
        with self._lock:
            return generate_latest(self.registry)

    def __call__(self, event: Event, /) -> None:
        """Count an event. Never waits for longer than a scrape takes to be written into memory."""
        with self._lock:
            kind = type(event)
            if self._draining and (kind is DrainBegan or kind in _DRAINED):
                self._draining.set(kind is DrainBegan)
            if kind in self._began:
                self._trouble.labels(self._began[kind]).set(1)
            elif kind in self._ended:
                self._trouble.labels(self._ended[kind]).set(0)
            self._count(event)

    def _count(self, event: Event) -> None:
        raise NotImplementedError
