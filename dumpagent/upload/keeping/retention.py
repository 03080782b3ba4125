"""Which dumps may leave the volume, in which order: policy alone, no I/O."""

from __future__ import annotations

from collections.abc import Iterable

from dumpagent.dumps.names import base_of_segment
from dumpagent.upload.keeping.recheck import Stored

# Dumps of one name that follow each other within this time are one crash loop.
_CRASH_LOOP_S = 3600.0


def may_go(stored: Stored) -> bool:
    """Say whether the store has confirmed the dump twice: right after its upload, and some time later."""
    return stored.receipt.verified and stored.receipt.rechecked


def in_order_of_deletion(stored: Iterable[Stored]) -> list[Stored]:
    """Give the dumps with that first whose loss from the disk matters least.

    Of a crash loop, the dumps between its first and its newest go before everything else, then its newest. The first
    shows the leak before restarts blur it, and is the one that people open: it goes last, with the dumps of crashes
    that did not repeat. Within each of the three, the oldest goes first.
    """
    by_time = sorted(stored, key=lambda each: (each.dump.identity.mtime_ns, each.dump.relpath))
    loops: dict[str, list[list[Stored]]] = {}  # by the dump's name, in order of time
    for each in by_time:
        of_name = loops.setdefault(each.receipt.path, [[]])
        if of_name[-1] and each.dump.mtime - of_name[-1][-1].dump.mtime > _CRASH_LOOP_S:
            of_name.append([])
        of_name[-1].append(each)
    rank: dict[int, int] = {}
    for loop in (loop for of_name in loops.values() for loop in of_name):
        for number, each in enumerate(loop):
            rank[id(each)] = 2 if number == 0 else 1 if number == len(loop) - 1 else 0
    return sorted(by_time, key=lambda each: rank[id(each)])


def with_segment_files(stored: Iterable[Stored]) -> dict[str, tuple[Stored, ...]]:
    """Give, by the path of each dump, the dump with the segment files that its killed JVM left beside it, these first.

    They stay or go together: a segment file that stays behind alone stops the JVM's next dump ("File exists"), and a
    stub without its segment files is worth little.
    """
    by_path = {each.dump.relpath: each for each in stored}
    segments: dict[str, list[Stored]] = {}
    for each in by_path.values():
        base = base_of_segment(each.dump.relpath)
        if base in by_path:
            segments.setdefault(base, []).append(each)
    belonging = {segment.dump.relpath for group in segments.values() for segment in group}
    return {path: (*segments.get(path, ()), each) for path, each in by_path.items() if path not in belonging}
