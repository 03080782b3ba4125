"""What libraries say through `logging` and `warnings`, as events: no line of the log is without a name."""

from __future__ import annotations

import logging

from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import LibraryWarned

_OF_WARNINGS = "py.warnings"  # Source: Python, logging.captureWarnings


class _Listener(logging.Handler):
    """Tells each kind of warning once: what a library says of one request it says of all."""

    def __init__(self, tell: Tell) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell
        self._told: set[tuple[str, str]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a slip in a library's own message must not end an upload
            text = str(record.msg)
        kind = record.name, text if record.name == _OF_WARNINGS else str(record.msg)
        if kind not in self._told:
            self._told.add(kind)
            self._tell(LibraryWarned(library=record.name, reason=" ".join(text.split())))


def hear_libraries(tell: Tell) -> None:
    """Tell of every warning of a library from now on, instead of letting it write a line of its own on stderr."""
    logging.captureWarnings(True)
    logging.getLogger().addHandler(_Listener(tell))
