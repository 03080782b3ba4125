"""What `ls`, `get` and `verify` share: filters, how a dump in the store is shown, and a clean end at Ctrl-C."""

from __future__ import annotations

import datetime as dt
import functools
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import click

from dumpagent.cli import fail
from dumpagent.errors import BadSettings
from dumpagent.fetch.choice import Ambiguous
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.settings import Kind, Setting

_C = TypeVar("_C", bound=Callable[..., Any])
_DURATION = Setting("--since", Kind.DURATION, "", low=0, high=1e9)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_VERDICT_COLOURS = {"complete": "green", "truncated": "yellow", "unknown": "yellow"}
_NODE_LEAST = 8


class Since(click.ParamType[float]):
    """Reads a date, a time, or how long ago, into seconds since the epoch."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return float(value)
        try:
            return time.time() - float(_DURATION.parse(value))
        except BadSettings:
            pass
        try:
            found = dt.datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is neither how long ago (2h, 7d) nor a time (2026-01-31, 2026-01-31T12:00)",
                param,
                ctx,
            )
        return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()


def filters(command: _C) -> _C:
    """Give a command the options --app, --node and --since; it is called with a `Wanted` without a part."""

    @click.option(
        "--app",
        metavar="DIRECTORY",
        default="",
        help="only dumps below this directory of the dump root: namespace/application",
    )
    @click.option(
        "--node",
        metavar="NODE",
        default="",
        help="only dumps of this node; * and ? stand for any text and any character",
    )
    @click.option(
        "--since",
        type=Since(),
        metavar="TIME",
        help="only dumps made since then: how long ago (2h, 7d) or a time in UTC (2026-01-31, 2026-01-31T12:00)",
    )
    @functools.wraps(command)
    def with_filters(*args: Any, app: str, node: str, since: float | None, **more: Any) -> Any:
        return command(*args, wanted=Wanted(app=app, node=node, since=since), **more)

    result: Any = with_filters
    return result  # type: ignore[no-any-return]  # the same command with other options


@contextmanager
def ending_at_once(*, said: str) -> Iterator[None]:
    """End the process at Ctrl-C or SIGTERM with `said` on stderr, without waiting for requests that are under way.

    An ambiguous name ends it too, after its candidates are shown.
    """

    def interrupt(number: int, _frame: FrameType | None) -> None:
        raise _Interrupted(number)

    before = signal.signal(signal.SIGTERM, interrupt), signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except _Interrupted as interrupted:
        say(f"\ndumpagent: stopped; {said}" if said else "\ndumpagent: stopped")
        sys.stdout.flush()
        os._exit(128 + interrupted.number)
    except Ambiguous as error:
        say("\n".join(table(error.candidates, width=_width(sys.stderr), colours=sys.stderr.isatty())))
        fail(error)
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGINT, before[1])


class _Interrupted(BaseException):
    """A signal came: nothing on the way up may take it for an error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def pause(seconds: float) -> None:
    """Sleep; a signal ends it."""
    threading.Event().wait(seconds)


def say(line: str) -> None:
    """Print for a person, on stderr, also while a progress bar is drawn."""
    print(line, file=sys.stderr, flush=True)


def shown(text: str) -> str:
    """Give `text` so that a terminal shows it as it is: what would steer it, or turn its text around, becomes \\xNN."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def size(size_bytes: int) -> str:
    """Give a size as people read it."""
    amount, unit, *larger = float(size_bytes), "B", "KiB", "MiB", "GiB", "TiB"
    while amount >= 1024 and larger:
        amount, unit = amount / 1024, larger.pop(0)
    return f"{amount:.1f} {unit}" if unit != "B" else f"{size_bytes} B"


def timestamp(seconds: float) -> str:
    """Give a time as ISO 8601 in UTC."""
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def table(dumps: Sequence[StoredDump], *, width: int | None, colours: bool) -> list[str]:
    """Give the lines that show the dumps; on a terminal `width` wide the node's name gives way, never the path."""

    def style(text: str, **how: Any) -> str:
        return click.style(text, **how) if colours else text

    rows = [("DUMPED (UTC)", "SIZE", "VERDICT", "CAUSE", "NODE", "DUMP")]
    rows += [_row(dump) for dump in dumps]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    if width:
        # The longest paths wrap anyway; most should not.
        paths = sorted(len(row[5]) for row in rows)
        usual = paths[min(len(paths) * 9 // 10, len(paths) - 1)]
        widths[4] = max(_NODE_LEAST, min(widths[4], width - sum(widths[:4]) - 10 - usual))
    lines = []
    for number, row in enumerate(rows):
        node = row[4] if len(row[4]) <= widths[4] else row[4][: widths[4] - 1] + "\N{HORIZONTAL ELLIPSIS}"
        cells = [
            row[0].ljust(widths[0]),
            row[1].rjust(widths[1]),
            style(row[2].ljust(widths[2]), fg=_VERDICT_COLOURS.get(row[2]))
            if number
            else row[2].ljust(widths[2]),
            row[3].ljust(widths[3]),
            node.ljust(widths[4]),
        ]
        if number:
            directory, slash, name = row[5].rpartition("/")
            lines.append("  ".join([*cells, directory + slash + style(name, bold=True)]))
        else:
            lines.append(style("  ".join([*cells, row[5]]), dim=True))
    return lines


def _row(dump: StoredDump) -> tuple[str, str, str, str, str, str]:
    when = timestamp(dump.when).replace("T", " ").removesuffix("Z")
    verdict = "?" if dump.refused else shown(dump.verdict or "-")
    nothing = "?" if dump.refused else "-"
    return (
        when if dump.dumped is not None else f"{when} *",
        size(dump.size_bytes),
        verdict,
        shown(dump.cause or nothing),
        shown(dump.node or nothing),
        shown(dump.path),
    )


def notes(dumps: Sequence[StoredDump]) -> list[str]:
    """Give what a person should know of a list of dumps, beside the list."""
    lines = []
    stored = sum(1 for dump in dumps if dump.dumped is None)
    if stored:
        lines.append(f"* {_many(stored, 'object')} without a dump time: shown is when it was stored")
    bare = sum(1 for dump in dumps if not dump.labelled and not dump.refused)
    if bare:
        lines.append(
            f"- {_many(bare, 'object')} without a verdict: not stored by this dumpagent, or by an old one"
        )
    refused = [dump for dump in dumps if dump.refused]
    if refused:
        lines.append(
            f"? {_many(len(refused), 'object')} whose metadata the store does not tell: {refused[0].refused}"
        )
        lines.append("  hint: these credentials need s3:GetObject on the objects")
    return lines


def warn_if_not_whole(dump: StoredDump) -> None:
    """Say on stderr when the dump that is fetched is not all of the heap."""
    if dump.verdict == "truncated":
        say(
            click.style("warning:", fg="yellow", bold=True)
            + f" {shown(dump.path)} is truncated: its JVM was killed, or its disk full, before the dump was done.\n"
            "  Eclipse MAT may open it all the same and show a part of the heap as if it were all of it."
        )
    elif dump.verdict == "unknown":
        say(
            click.style("warning:", fg="yellow", bold=True)
            + f" nobody knows whether {shown(dump.path)} is complete; `dumpagent inspect` tells once it is here"
        )


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _width(stream: Any) -> int | None:
    return shutil.get_terminal_size().columns if stream.isatty() else None


def print_table(dumps: Sequence[StoredDump]) -> None:
    """Print the dumps on stdout, and what is to be known of them on stderr."""
    click.echo("\n".join(table(dumps, width=_width(sys.stdout), colours=sys.stdout.isatty())))
    for line in notes(dumps):
        say(line)
