"""What `ls`, `get` and `verify` share: filters, how a dump in the store is shown, and a clean end at Ctrl-C."""

from __future__ import annotations

import datetime as dt
import functools
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple, TypeVar

import click

from dumpagent.cli import fail
from dumpagent.dumps.text import iso_time, printable, size_text
from dumpagent.errors import BadSettings, DumpagentError
from dumpagent.fetch.choice import Ambiguous
from dumpagent.fetch.companions import companion_name
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.setting import Kind, Setting
from dumpagent.store.protocol import StoredObject

_C = TypeVar("_C", bound=Callable[..., Any])
_DURATION = Setting("--since", Kind.DURATION, "", low=0, high=1e9)
_VERDICT_COLOURS = {"complete": "green", "truncated": "yellow", "unknown": "yellow"}


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


_FILTERS = {
    "namespace": "only dumps of applications in this namespace",
    "workload": "only dumps of this workload (Deployment, StatefulSet, Job ...): NAME or NAMESPACE/NAME",
    "pod": "only dumps of this pod",
    "node": "only dumps of this node",
    "cluster": "only dumps of this cluster",
    "verdict": "only dumps with this verdict: complete, truncated, unknown",
    "cause": "only dumps written for this cause: oom, request, unknown",
}

reads_replica = click.option(
    "--replica",
    "from_replica",
    is_flag=True,
    help="the replica's bucket (S3_REPLICA_BUCKET) in place of the first",
)


def filters(command: _C) -> _C:
    """Give a command the options that narrow a list of dumps; it is called with a `Wanted` without a part."""

    for name, meaning in reversed(_FILTERS.items()):
        command = click.option(
            f"--{name}",
            metavar=name.upper(),
            default="",
            help=f"{meaning}; * and ? stand for any text and any character"
            if name == "namespace"
            else meaning,
        )(command)

    @click.option(
        "--app",
        metavar="DIRECTORY",
        default="",
        help="only dumps below this directory of the dump root: namespace/application",
    )
    @click.option(
        "--since",
        type=Since(),
        metavar="TIME",
        help="only dumps made since then: how long ago (2h, 7d) or a time in UTC (2026-01-31, 2026-01-31T12:00)",
    )
    @functools.wraps(command)
    def with_filters(*args: Any, app: str, since: float | None, **more: Any) -> Any:
        patterns = {name: more.pop(name) for name in _FILTERS}
        return command(*args, wanted=Wanted(app=app, since=since, **patterns), **more)

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


def say_broken(offset: int, error: DumpagentError) -> None:
    """Say that the connection to the store broke, and that the reading goes on."""
    say(f"note: the connection broke at byte {offset:,}; going on from there ({shown(str(error))})")


def shown(text: str) -> str:
    """Give `text` so that a terminal shows it as it is and is not steered by it."""
    return printable(text)


def size(size_bytes: int) -> str:
    """Give a size as people read it."""
    return size_text(size_bytes)


def timestamp(seconds: float) -> str:
    """Give a time as ISO 8601 in UTC."""
    return iso_time(seconds) or "?"


def table(
    dumps: Sequence[StoredDump],
    *,
    width: int | None,
    colours: bool,
    beside: Mapping[str, Sequence[StoredObject]] | None = None,
) -> list[str]:
    """Give the lines that show the dumps, one each; `width` is the terminal's, None where nothing is to be cut.

    On a narrow terminal columns give way from the left of the path: the node, the cause, the workload. The path, which
    one copies, is never cut; where it is too long for the line it stands on a line of its own. `beside` are the files
    beside dumps, by the dump's key: each has a line below its dump.
    """

    def style(text: str, **how: Any) -> str:
        return click.style(text, **how) if colours else text

    head = Row("DUMPED (UTC)", "SIZE", "VERDICT", "CAUSE", "WORKLOAD", "NODE", "DUMP")
    clusters = len({dump.cluster for dump in dumps}) > 1
    rows = [_row(dump, cluster=clusters) for dump in dumps]
    columns = _columns([head, *rows], width)
    indent = width is not None and any(_length(row, columns) > width for row in rows)
    lines = [style("  ".join(_cells(head, columns) + ([] if indent else [head.path])), dim=True)]
    for dump, row in zip(dumps, rows, strict=True):
        cells = _cells(row, columns)
        at = list(columns).index("verdict")
        cells[at] = style(cells[at], fg=_VERDICT_COLOURS.get(row.verdict))
        directory, slash, name = row.path.rpartition("/")
        path = directory + slash + style(name, bold=True)
        lines += ["  ".join(cells).rstrip(), f"  {path}"] if indent else ["  ".join([*cells, path])]
        lines += [
            f"    + {shown(companion_name(each))} ({size(each.size_bytes)})"
            for each in (beside or {}).get(dump.key, ())
        ]
    return lines


class Row(NamedTuple):
    """One dump as a list shows it."""

    when: str
    size: str
    verdict: str
    cause: str
    workload: str
    node: str
    path: str


def _columns(rows: Sequence[Row], width: int | None) -> dict[str, int]:
    """Give the columns before the path that fit into `width`, with the characters of each."""
    widths = {name: max(len(getattr(row, name)) for row in rows) for name in Row._fields if name != "path"}
    if width is None:
        return widths
    usual = sorted(len(row.path) for row in rows)[
        len(rows) * 9 // 10 - 1
    ]  # the longest paths stand alone anyway
    for name in ("node", "cause", "workload"):
        if sum(widths.values()) + 2 * len(widths) + usual <= width:
            break
        if name == "node" or sum(widths.values()) + 2 * len(widths) > width:
            del widths[name]
    return widths


def _length(row: Row, columns: Mapping[str, int]) -> int:
    return sum(columns.values()) + 2 * len(columns) + len(row.path)


def _cells(row: Row, columns: Mapping[str, int]) -> list[str]:
    return [
        getattr(row, name).rjust(width) if name == "size" else getattr(row, name).ljust(width)
        for name, width in columns.items()
    ]


def _row(dump: StoredDump, *, cluster: bool) -> Row:
    when = timestamp(dump.when).replace("T", " ").removesuffix("Z")
    nothing = "?" if dump.refused else "-"
    owner = dump.owner
    name = owner.workload or owner.pod or nothing
    return Row(
        when if dump.dumped is not None else f"{when} *",
        size(dump.size_bytes),
        shown(dump.verdict or nothing),
        shown(dump.cause or nothing),
        shown(f"{owner.namespace}/{name}" if owner.namespace else name),
        shown(f"{dump.cluster or nothing}/{dump.node or nothing}" if cluster else dump.node or nothing),
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
            f"? {_many(len(refused), 'object')} whose metadata the store does not tell: {shown(refused[0].refused or '')}"
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


def print_table(dumps: Sequence[StoredDump], beside: Mapping[str, Sequence[StoredObject]]) -> None:
    """Print the dumps on stdout, with what lies beside each, and what is to be known of them on stderr."""
    lines = table(dumps, width=_width(sys.stdout), colours=sys.stdout.isatty(), beside=beside)
    click.echo("\n".join(lines))
    for line in notes(dumps):
        say(line)
