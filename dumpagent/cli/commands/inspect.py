"""`dumpagent inspect`: what a heap dump tells, for the developer who has just found one."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import click

from dumpagent.dumps.model import Cause, DumpFacts, State
from dumpagent.dumps.names import dump_of_segment
from dumpagent.dumps.text import iso_time_ms, size_text
from dumpagent.errors import DumpagentError
from dumpagent.hprof.histogram import Histogram, count_objects
from dumpagent.hprof.look import Look
from dumpagent.hprof.walk import Shape, Walk, Walked
from dumpagent.kernel.lease import WriterState, writer_state
from dumpagent.kernel.reading import OpenFile, open_regular
from dumpagent.observe.log import printable
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
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--histogram",
    type=click.IntRange(min=1),
    metavar="[N]",
    help=f"also list the N classes (default {_HISTOGRAM_LINES}) that take the most memory, by shallow size",
)
@click.option("--quick", is_flag=True, help="do not read the heap: milliseconds, but no count of objects")
@click.option("--json", "as_json", is_flag=True, help="print one line of JSON per file")
def command(files: tuple[str, ...], histogram: int | None, quick: bool, as_json: bool) -> None:
    """Say whether heap dumps are complete, who wrote them and why, and what is in them.

    Reads .hprof and .hprof.gz alike, whatever their names.

    Exit code: 0 complete, 1 not complete, 2 not a heap dump or not readable; of several files the worst.
    """
    if quick and histogram:
        raise click.UsageError("--histogram reads the heap, which --quick does not")
    worst = 0
    for number, path in enumerate(files):
        try:
            inspected = inspect(path, classes=0 if histogram is None else histogram, quick=quick)
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


def inspect(path: str, *, classes: int, quick: bool) -> Inspected:
    """Give what is in the file `path`, with its `classes` largest classes. Raises DumpagentError with a hint."""
    if path == "-":
        raise DumpagentError(
            "a heap dump cannot be read from standard input",
            hint="its end tells whether it is complete: save it to a file first",
        )
    try:
        with open_regular(path) as opened:
            return _inspect(opened, path, classes, quick)
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


def _inspect(opened: OpenFile, path: str, classes: int, quick: bool) -> Inspected:
    size_bytes = opened.status().st_size
    if quick:
        opened.hop()
    look = Look(opened)
    walked = look.advance(size_bytes, budget_bytes=None)
    state = _state(walked, writer_state(opened.fd))
    facts = look.facts()
    reason = walked.reason
    base = dump_of_segment(os.path.basename(path))
    if base and state is State.NOT_A_DUMP:
        reason = (
            f"it is a part of {base}, which its JVM merges at the end of the dump; alone it cannot be read"
        )
    found = None
    segments = None if look.unpacked and not look.unpacked_to_end else look.walk.segments
    snapshots = look.walk.snapshots
    if facts and look.head_seen:
        if not quick:
            found = _count(look, os.path.basename(path), size_bytes, classes)
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


def _count(look: Look, name: str, size_bytes: int, classes: int) -> Histogram:
    unpacked, walk = look.unpacked, Walk()
    start = look.walk.chosen.start if look.walk.chosen and not unpacked else 0
    if unpacked:
        unpacked.allowance_bytes = None
    with progress.bar(_shown(name), size_bytes) as advance:
        shown = 0

        def note(heap_bytes: int) -> None:
            nonlocal shown
            if unpacked is None:
                advance(heap_bytes)
            elif unpacked.packed_offset > shown:
                advance(unpacked.packed_offset - shown)
                shown = unpacked.packed_offset

        found = count_objects(look.bytes_source, walk, start=start, most=classes, progress=note)
    if unpacked:
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
