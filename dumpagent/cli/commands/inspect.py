"""`dumpagent inspect`: what a heap dump tells, on this disk or in the store."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import click

from dumpagent.cli.options import takes
from dumpagent.cli.stored import ending_at_once, filters, pause, say_broken
from dumpagent.dumps.model import Cause, DumpFacts, State
from dumpagent.dumps.names import dump_of_segment
from dumpagent.dumps.text import iso_time_ms, size_text
from dumpagent.errors import DumpagentError
from dumpagent.fetch.stored import Wanted
from dumpagent.hprof.histogram import Histogram, count_objects
from dumpagent.hprof.look import Look
from dumpagent.hprof.source import ByteSource
from dumpagent.hprof.walk import Shape, Walk, Walked
from dumpagent.kernel.lease import WriterState, writer_state
from dumpagent.kernel.reading import open_regular
from dumpagent.observe.log import printable
from dumpagent.settings import S3
from dumpagent.terminal import progress

_HISTOGRAM_LINES = 20
_STACK_LINES = 20
# How long the thread's name is searched: whole dumps are read at 1 GB/s, and sparse files can be terabytes.
_SEARCH_S, _DAMAGED_S = 30.0, 1.0
_EXIT = {State.COMPLETE: 0, State.NOT_A_DUMP: 2}
_COLOURS = {State.COMPLETE: "green", State.WRITING: "yellow", State.NOT_A_DUMP: "red"}
_CAUSES = {
    Cause.OOM: "OutOfMemoryError",
    Cause.REQUEST: "on request (jcmd, jmap, HotSpotDiagnosticMXBean, before or after a full GC)",
    Cause.UNKNOWN: "unknown: the dump has no thread stacks that could tell",
}


class _Command(click.Command):
    """Takes `--histogram` with and without a number: `inspect --histogram FILE` and `inspect --histogram 50 FILE`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given: list[str] = []
        for number, arg in enumerate(args):
            given.append(arg)
            bare = arg == "--histogram" and "--" not in args[:number]
            if bare and not "".join(args[number + 1 : number + 2]).lstrip("-").isdigit():
                given.append(str(_HISTOGRAM_LINES))
        return super().parse_args(ctx, given)


@dataclass(frozen=True, slots=True)
class Inspected:
    """All that was found out about one file."""

    path: str
    size_bytes: int
    state: State
    reason: str
    facts: DumpFacts | None
    segments: int | None  # None: the file is gzip and was not unpacked to its end
    histogram: Histogram | None
    snapshots: int = 1


@click.command("inspect", cls=_Command, short_help="Say what a heap dump is and what is in it.")
@click.argument("names", metavar="[FILE|KEY]...", nargs=-1)
@click.option("--latest", is_flag=True, help="the newest dump in the store of those that the filters leave")
@filters
@click.option(
    "--histogram",
    type=click.IntRange(min=1),
    metavar="[N]",
    help=f"also list the N classes (default {_HISTOGRAM_LINES}) that take the most memory, by shallow size",
)
@click.option("--quick", is_flag=True, help="do not read the heap: milliseconds, but no count of objects")
@click.option("--json", "as_json", is_flag=True, help="print one line of JSON per file")
@takes(S3, without=["storage_class"], when_asked=True)
def command(
    s3: Callable[[], S3],
    names: tuple[str, ...],
    latest: bool,
    wanted: Wanted,
    histogram: int | None,
    quick: bool,
    as_json: bool,
) -> None:
    """Say whether heap dumps are complete, who wrote them and why, and what is in them.

    Takes files, and dumps in the store by their key, their path, or a part of the path that no other dump has: these are
    read from the store as a stream and not kept. Reads .hprof and .hprof.gz alike, whatever their names.

    Exit code: 0 complete, 1 not complete, 2 not a heap dump or not readable; of several files the worst.
    """
    if quick and histogram:
        raise click.UsageError("--histogram reads the heap, which --quick does not")
    if bool(names) == latest:
        raise click.UsageError("name a file, or a dump in the store (`dumpagent ls` shows them), or --latest")
    worst = 0
    with ending_at_once(said=""):
        for number, name in enumerate(names or ("",)):
            try:
                inspected = _find_and_inspect(
                    name, s3, wanted, latest=latest, classes=histogram or 0, quick=quick
                )
            except DumpagentError as error:
                click.echo(f"dumpagent: {printable(str(error))}", err=True)
                click.echo(f"  hint: {error.hint}", err=True)
                worst = 2
                continue
            worst = max(worst, _EXIT.get(inspected.state, 1))
            if as_json:
                click.echo(json.dumps(as_dict(inspected), ensure_ascii=False))
            else:
                click.echo(("\n" if number else "") + describe(inspected), nl=False)
    sys.exit(worst)


def _find_and_inspect(
    name: str, s3: Callable[[], S3], wanted: Wanted, *, latest: bool, classes: int, quick: bool
) -> Inspected:
    """Inspect the file of that name, else the dump in the store. Raises DumpagentError."""
    if not latest and (name == "-" or os.path.lexists(name)):
        return inspect(name, classes=classes, quick=quick)
    try:
        settings = s3()
    except DumpagentError as error:
        raise DumpagentError(
            "no store is named"
            if latest
            else f"{_shown(name)}: there is no such file, and no store is named",
            hint=f"check the path; a finished dump may have been renamed <stem>.<time>.hprof. For a key: {error.hint}",
        ) from error
    return inspect_stored(settings, replace(wanted, part=name), latest=latest, classes=classes, quick=quick)


def inspect_stored(settings: S3, wanted: Wanted, *, latest: bool, classes: int, quick: bool) -> Inspected:
    """Give what is in a dump of the store, which is read as a stream. Raises DumpagentError with a hint."""
    from dumpagent.cli.store import open_store_to_read
    from dumpagent.fetch.choice import choose, key_in, newest
    from dumpagent.fetch.remote import RemoteFile

    store = open_store_to_read(settings)
    wanted = replace(wanted, part=key_in(wanted.part, settings.bucket))
    dump = (newest if latest else choose)(store, wanted, prefix=settings.prefix, now=time.time())
    remote = RemoteFile(store, dump.stored, pause=pause, broken=say_broken)
    return _inspect(remote, dump.key, remote.size_bytes, WriterState.NO_WRITER, classes, quick, streamed=True)


def inspect(path: str, *, classes: int, quick: bool) -> Inspected:
    """Give what is in the file `path`, with its `classes` largest classes. Raises DumpagentError with a hint."""
    if path == "-":
        raise DumpagentError(
            "a heap dump cannot be read from standard input",
            hint="its end tells whether it is complete: save it to a file first",
        )
    try:
        with open_regular(path) as opened:
            if quick:
                opened.hop()
            size_bytes = opened.status().st_size
            return _inspect(opened, path, size_bytes, writer_state(opened.fd), classes, quick)
    except OSError as error:
        hint = {
            "No such file or directory": "check the path; a finished dump may have been renamed <stem>.<time>.hprof",
            "Permission denied": "dumps belong to their application's user alone: run this as that user or as root",
            "Too many levels of symbolic links": "name the file that the symbolic link leads to",
            "not a regular file": "name a file, not a directory or device",
        }.get(
            error.strerror or "", "the file could not be read to its end; try again, then look at its volume"
        )
        raise DumpagentError(f"{_shown(path)}: {error.strerror or error}", hint=hint) from error


def _inspect(
    source: ByteSource,
    path: str,
    size_bytes: int,
    writer: WriterState,
    classes: int,
    quick: bool,
    *,
    streamed: bool = False,
) -> Inspected:
    """Look through `source`, which is read once if it is `streamed`: each byte comes over the network."""
    look = Look(source)
    once = streamed and not quick
    walked = look.advance(size_bytes, budget_bytes=None, keep_on=lambda _bytes: not once)
    found = None
    if once and walked.shape is Shape.UNFINISHED:
        found = _count(look, os.path.basename(path), size_bytes, classes, streamed=True)
        walked = look.advance(size_bytes, budget_bytes=None)
    state = _state(walked, writer)
    facts = look.facts()
    reason = walked.reason
    base = dump_of_segment(os.path.basename(path))
    if base and state is State.NOT_A_DUMP:
        reason = (
            f"it is a part of {base}, which its JVM merges at the end of the dump; alone it cannot be read"
        )
    segments = None if look.unpacked and not look.unpacked_to_end else look.walk.segments
    snapshots = look.walk.snapshots
    if facts and look.head_seen:
        if not quick:
            found = found or _count(look, os.path.basename(path), size_bytes, classes)
            segments, snapshots = found.segments, found.snapshots
            facts = look.facts() or facts
            if found.damage and state is State.COMPLETE:
                state, reason = (
                    State.TRUNCATED,
                    f"its records tile it, but its heap is damaged: {found.damage}",
                )
            facts = dataclasses.replace(facts, oom_thread=_oom_thread(look, state))
        facts = dataclasses.replace(facts, oom_stack=look.oom_stack())
    return Inspected(path, size_bytes, state, reason, facts, segments, found, snapshots)


def _oom_thread(look: Look, state: State) -> str | None:
    """Give the thread's name. What is damaged may be huge and empty: the search gets no more than a second there."""
    until = time.monotonic() + (_SEARCH_S if state is State.COMPLETE else _DAMAGED_S)
    return look.oom_thread(keep_on=lambda _bytes: time.monotonic() < until)


def _count(look: Look, name: str, size_bytes: int, classes: int, *, streamed: bool = False) -> Histogram:
    unpacked, walk = look.unpacked, Walk()
    start = look.walk.chosen.start if look.walk.chosen and not unpacked and not streamed else 0
    if unpacked:
        unpacked.allowance_bytes, unpacked.keep_on = None, lambda _bytes: True
    with progress.bar(_shown(name), size_bytes) as advance:
        shown = 0

        def note(heap_bytes: int) -> None:
            nonlocal shown
            if unpacked is None:
                advance(heap_bytes)
            elif unpacked.packed_offset > shown:
                advance(unpacked.packed_offset - shown)
                shown = unpacked.packed_offset

        found = count_objects(
            look.bytes_source, walk, start=start, most=classes, progress=note,
            size_bytes=None if unpacked else size_bytes,
        )  # fmt: skip
    if unpacked or streamed:
        look.walk = walk  # has seen all of it
    if unpacked and unpacked.problem:
        return dataclasses.replace(found, damage=unpacked.problem)
    return found


def _state(walked: Walked, writer: WriterState) -> State:
    if writer is WriterState.WRITER:
        return State.WRITING
    if walked.shape is Shape.COMPLETE:
        return State.COMPLETE
    if walked.shape in (Shape.FOREIGN, Shape.EMPTY):
        return State.NOT_A_DUMP
    return State.TRUNCATED


def as_dict(inspected: Inspected) -> dict[str, Any]:
    """Give everything as JSON takes it; times are ISO 8601 in UTC, what is not known is null."""
    facts, heap = inspected.facts, inspected.histogram
    return {
        "path": printable(inspected.path),
        "size_bytes": inspected.size_bytes,
        "state": inspected.state.value,
        "reason": inspected.reason,
        "format": facts.format if facts else None,
        "id_size": facts.id_size if facts else None,
        "dump_time": iso_time_ms(facts.dump_time_ms) if facts else None,
        "jvm": facts.jvm if facts else None,
        "cause": facts.cause.value if facts else None,
        "oom_thread": printable(facts.oom_thread) if facts and facts.oom_thread is not None else None,
        "oom_stack": [printable(frame) for frame in facts.oom_stack] if facts else [],
        "oom_frames": facts.oom_frames if facts else 0,
        "classes": facts.classes if facts else None,
        "threads": facts.threads if facts else None,
        "segments": inspected.segments,
        "snapshots": inspected.snapshots,
        "heap": {
            "objects": heap.objects,
            "arrays": heap.arrays,
            "shallow_bytes": heap.shallow_bytes,
            "classes_with_objects": heap.class_count,
            "roots": heap.roots,
            "layout": heap.layout,
            "snapshot": heap.snapshot,
            "damage": heap.damage,
        }
        if heap
        else None,
        "histogram": [
            {"class": printable(each.name), "instances": each.instances, "shallow_bytes": each.shallow_bytes}
            for each in heap.classes
        ]
        if heap and heap.classes
        else None,
    }


def describe(inspected: Inspected) -> str:
    """Give the text that a person reads on a terminal; it ends with a newline."""
    facts, heap = inspected.facts, inspected.histogram
    title = click.style(_shown(inspected.path), bold=True)
    state = click.style(_worded(inspected.state), fg=_COLOURS.get(inspected.state, "red"), bold=True)
    lines = [f"{title}  {size_text(inspected.size_bytes)}", f"  {state}: {inspected.reason}"]
    rows: list[tuple[str, str]] = []
    if facts:
        rows = [
            ("cause", _CAUSES[facts.cause]),
            ("dump time", iso_time_ms(facts.dump_time_ms) or "not a possible one"),
            ("JVM", facts.jvm or "not named"),
            ("format", f"{facts.format}, {facts.id_size}-byte identifiers"),
            ("classes", f"{facts.classes or 0:,} loaded"),
            ("threads", f"{facts.threads or 0:,} with a stack"),
        ]
    if inspected.snapshots > 1:
        counted = f"; number {heap.snapshot} is counted here" if heap else ""
        rows.append(("snapshots", f"{inspected.snapshots} in this file{counted}"))
    if heap:
        rows += [
            ("objects", f"{heap.objects:,}, {heap.arrays:,} of them arrays"),
            ("heap", f"{size_text(heap.shallow_bytes)} in objects ({heap.layout})"),
        ]
        if heap.damage:
            rows.append(("", f"not all is counted: {heap.damage}"))
    lines += [f"  {name:<11}{value}" for name, value in rows]
    if facts and facts.oom_stack:
        lines += ["", f"  Out of memory in {_thread(facts.oom_thread)}"]
        lines += [f"    at {printable(frame)}" for frame in facts.oom_stack[:_STACK_LINES]]
        left = max(facts.oom_frames, len(facts.oom_stack)) - _STACK_LINES
        if left > 0:
            lines.append(f"    ... {left:,} more frames")
    if heap and heap.classes:
        lines += ["", *_table(heap)]
    return "\n".join(lines) + "\n"


def _thread(name: str | None) -> str:
    if name is None:
        return "a thread whose name was not found"
    return f"thread {printable(name)}" if name else "a thread without a name"


def _table(heap: Histogram) -> list[str]:
    header = f"  {'instances':>12}  {'bytes':>15}  {'share':>6}  class"
    lines = [click.style(header, dim=True)]
    total = heap.shallow_bytes or 1
    for each in heap.classes:
        share = f"{100 * each.shallow_bytes / total:.1f}%"
        lines.append(
            f"  {each.instances:>12,}  {each.shallow_bytes:>15,}  {share:>6}  {printable(each.name)}"
        )
    left = heap.class_count - len(heap.classes)
    if left > 0:
        lines.append(click.style(f"  {'':>12}  {'':>15}  {'':>6}  and {left:,} more classes", dim=True))
    return lines


def _worded(state: State) -> str:
    return {State.WRITING: "still being written", State.NOT_A_DUMP: "not a heap dump"}.get(state, state.value)


def _shown(path: str) -> str:
    return str(printable(path))
