"""The listener that writes events as log lines on stderr: JSON for machines, coloured columns for people."""

from __future__ import annotations

import io
import json
import sys
import time
import traceback
from typing import TextIO

from dumpagent.dumps import text
from dumpagent.observe.events import Event, Tell
from dumpagent.secrets import hide
from dumpagent.settings import Logging

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def printable(value: object, *, lines: bool = False) -> object:
    """Give `value` as text that any terminal and JSON reader takes and none is steered by; see `dumps.text`.

    Secrets in it become ***. `lines` keeps the line ends of text of our own.
    """
    if isinstance(value, str):
        return text.printable(hide(value), lines=lines)
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, (int, bool, type(None))):
        return value
    if isinstance(value, (list, tuple)):
        return [printable(item, lines=lines) for item in value]
    if isinstance(value, dict):
        return {str(printable(name)): printable(item, lines=lines) for name, item in value.items()}
    return printable(str(value))


class _Stderr(io.StringIO):
    """What stderr is at the moment of writing: a progress bar puts itself in its place while it is drawn."""

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def isatty(self) -> bool:
        return sys.stderr.isatty()


def log_to(stream: TextIO | None, settings: Logging) -> Tell:
    """Build the listener that writes to `stream` (None: stderr, looked up at each line)."""
    target: TextIO = stream or _Stderr()
    least = LEVELS[settings.log_level]
    if settings.log_format == "console" or (settings.log_format == "auto" and target.isatty()):
        # Only here: structlog takes 15 MB, as much as all the rest of a daemon that writes JSON.
        from dumpagent.observe.console import console_lines

        return console_lines(target, least)
    return _json_lines(target, least)


def _json_lines(target: TextIO, least: int) -> Tell:
    def tell(event: Event, /) -> None:
        if LEVELS[event.level] < least:
            return
        now_ns = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_ns // 10**9))
        # Time, level and event come first: a person reads JSON lines too.
        line: dict[str, object] = {
            "timestamp": f"{stamp}.{now_ns // 1000 % 10**6:06d}Z",
            "level": event.level,
            "event": event.name,
        }
        line |= {
            name: printable(value, lines=name == "trace")
            for name, value in event.fields().items()
            if value is not None
        }
        target.write(json.dumps(line, ensure_ascii=False) + "\n")
        target.flush()

    return tell


def tell_all(*listeners: Tell) -> Tell:
    """Join listeners into one. A listener that fails is named on stderr and does not stop the others."""

    def tell(event: Event, /) -> None:
        for listener in listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - what the agent says about its work must never stop its work
                print(
                    f"dumpagent: a listener failed at {event.name}:\n{traceback.format_exc()}",
                    file=sys.stderr,
                )

    return tell
