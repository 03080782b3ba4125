"""The listener that writes events as log lines on stderr: JSON for machines, coloured columns for people."""

from __future__ import annotations

import io
import os
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from dumpagent.observe.events import Event, Tell
from dumpagent.settings import Logging

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def printable(value: object) -> object:
    """Give `value` as text that any terminal and JSON reader takes: bytes that are not UTF-8 become \\xNN."""
    if isinstance(value, str):
        return os.fsencode(value).decode("utf-8", "backslashreplace")
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, (int, bool, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {str(printable(name)): printable(item) for name, item in value.items()}
    return printable(str(value))


class _Stderr(io.StringIO):
    """What stderr is at the moment of writing: a progress bar puts itself in its place while it is drawn."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def _what_happened_first(
    _logger: object, _method: str, fields: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Put time, level and event before the rest: a person reads JSON lines too."""
    first = {name: fields[name] for name in ("timestamp", "level", "event")}
    return {**first, **fields}


def log_to(stream: TextIO | None, settings: Logging) -> Tell:
    """Build the listener that writes to `stream` (None: stderr, looked up at each line)."""
    target: TextIO = stream or _Stderr()
    console = settings.log_format == "console" or (settings.log_format == "auto" and target.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            sort_keys=False, colors=target.isatty() and "NO_COLOR" not in os.environ
        )
        if console
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    logger = structlog.wrap_logger(
        structlog.PrintLogger(target),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if console else "iso", utc=not console),
            _what_happened_first,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[settings.log_level]),
    )

    def tell(event: Event, /, **fields: object) -> None:
        getattr(logger, event.level)(
            event.name, **{name: printable(value) for name, value in fields.items() if value is not None}
        )

    return tell


def tell_all(*listeners: Tell) -> Tell:
    """Join listeners into one. A listener that fails is named on stderr and does not stop the others."""

    def tell(event: Event, /, **fields: object) -> None:
        for listener in listeners:
            try:
                listener(event, **fields)
            except Exception:  # noqa: BLE001 - what the agent says about its work must never stop its work
                print(
                    f"dumpagent: a listener failed at {event.name}:\n{traceback.format_exc()}",
                    file=sys.stderr,
                )

    return tell
