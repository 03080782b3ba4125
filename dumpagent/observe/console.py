"""Log lines for people: coloured columns, by structlog."""

from __future__ import annotations

import os
from typing import Any, TextIO

import structlog

from dumpagent.observe.events import Event, Tell
from dumpagent.observe.log import printable


def console_lines(target: TextIO, least: int) -> Tell:
    """Build the listener that writes events of the level `least` and above to `target`."""
    renderer: Any = structlog.dev.ConsoleRenderer(
        sort_keys=False, colors=target.isatty() and "NO_COLOR" not in os.environ
    )
    logger = structlog.wrap_logger(
        structlog.PrintLogger(target),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(least),
    )

    def tell(event: Event, /) -> None:
        getattr(logger, event.level)(
            event.name,
            **{name: printable(value) for name, value in event.fields().items() if value is not None},
        )

    return tell
