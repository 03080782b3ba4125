"""A dump that is too large for the budget of a summary: what was read until then is told, never nothing."""

from __future__ import annotations

import time

import pytest

from dumpagent.hprof.source import InMemory
from dumpagent.hprof.walk import Walk
from dumpagent.summary.summarise import summarise
from tests.harness.hprof import END, record
from tests.unit.summary.test_summarise import array_leak

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Repeated:
    """A ByteSource: a start, a piece many times, an end. A fake of a large file, which costs no disk."""

    def __init__(self, start: bytes, piece: bytes, times: int, end: bytes) -> None:
        self._start, self._piece, self._end = start, piece, end
        self._end_at = len(start) + times * len(piece)
        self.size_bytes = self._end_at + len(end)

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        found = self._start[offset : offset + size_bytes]
        while len(found) < size_bytes and offset + len(found) < self._end_at:
            inside = (offset + len(found) - len(self._start)) % len(self._piece)
            most = min(size_bytes - len(found), self._end_at - offset - len(found))
            found += self._piece[inside : inside + most]
        behind = max(0, offset + len(found) - self._end_at)
        return found + self._end[behind : behind + size_bytes - len(found)]


def large_leak(size_bytes: int) -> Repeated:
    """Give a dump of about so many bytes, whose one holder has all of its objects."""
    content, walk = array_leak(), Walk()
    walk.advance(InMemory(content), size_bytes=len(content), each_heap_record=True)
    assert walk.heap_record is not None
    start = walk.heap_record.offset - 9
    piece = content[start : walk.heap_record.offset + walk.heap_record.length]
    return Repeated(content[:start], piece, size_bytes // len(piece), record(END))


@pytest.mark.parametrize("budget_s", [2.0, 5.0])
def test_the_summary_of_a_dump_of_4_gib_names_the_holder_within_a_budget_that_ends(budget_s: float) -> None:
    source = large_leak(4 << 30)
    report = summarise(source, size_bytes=source.size_bytes, budget_s=budget_s, cpu_s=time.process_time)
    assert report is not None
    assert report.out_of_time
    assert 0 < report.surveyed_percent < 100
    assert report.cpu_s < 1.5 * budget_s + 1
    assert report.classes
    assert report.owner is not None
    assert report.owner.name == "com.acme.Holder.kept"
    assert f"{report.surveyed_percent} % of the dump that were read within the budget" in report.lines()[0]
