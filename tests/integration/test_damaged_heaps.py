"""Damaged heaps: whatever a file holds, analysis, comparison and summary give an answer or say why there is none."""

from __future__ import annotations

import gzip
import random
import struct
import time

import pytest

from dumpagent.analyze.analysis import Subject, Wishes, analyze
from dumpagent.analyze.compile import small_dump
from dumpagent.analyze.growth.measure import measure
from dumpagent.analyze.memory import Budget
from dumpagent.analyze.model import Analysis
from dumpagent.analyze.report.asjson import as_json
from dumpagent.analyze.report.page import as_page
from dumpagent.analyze.report.text import as_text
from dumpagent.errors import DumpagentError
from dumpagent.hprof.source import InMemory
from dumpagent.summary.summarise import summarise
from tests.harness.hprof import END, SEGMENT, Maker, record
from tests.unit.analyze.heaps import Heap

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LIMIT = Budget(2 << 30, lambda _text: None)


def answers(content: bytes) -> bool:
    """Put a file through all three; say whether it has a heap. Raises what none of them may raise."""
    report = summarise(InMemory(content), size_bytes=len(content), cpu_s=time.process_time)
    if report:
        report.lines()
        report.as_dict()
    known = Subject("x", len(content))
    try:
        analysis = analyze(
            InMemory(content), known, LIMIT, wishes=Wishes(), step=lambda _title: lambda _bytes: None
        )
        as_json(analysis)
        as_page(analysis)
        as_text(analysis, rows=5, style=lambda text, **_how: text)
        measure(InMemory(content), known, LIMIT, step=lambda _title: lambda _bytes: None)
    except DumpagentError:
        return False
    return True


@pytest.mark.parametrize("id_size", [4, 8])
def test_a_dump_that_ends_at_any_byte_is_answered(id_size: int) -> None:
    content = small_dump(id_size)
    assert answers(content)
    for end in range(len(content)):
        answers(content[:end])


@pytest.mark.parametrize("seed", range(4))
def test_a_dump_with_anything_wrong_in_it_is_answered(seed: int) -> None:
    chance = random.Random(seed)
    whole = small_dump(chance.choice([4, 8]))
    for number in range(300):
        changed = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(changed))
            what = chance.randrange(5)
            if what == 0:
                changed[at] ^= 1 << chance.randrange(8)
            elif what == 1:
                changed[at : at + 4] = struct.pack(
                    ">I", chance.choice([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
                )
            elif what == 2:
                changed[at:at] = chance.randbytes(chance.randrange(12))
            elif what == 3:
                del changed[at : at + chance.randrange(12)]
            else:
                start = chance.randrange(len(changed))
                changed[at:at] = changed[start : start + 60]
        content = bytes(changed)
        try:
            answers(content)
        except Exception as error:
            raise AssertionError(f"seed {seed}, dump {number}: {content.hex()}") from error


def test_names_that_are_no_text_are_shown_all_the_same() -> None:
    content = small_dump(8).replace(
        b"java/util/HashMap", b"a/\xff\xfe\xed\xa0\x80\x1b[31m/<b>"[:17].ljust(17, b"x")
    )
    assert answers(content)


def test_a_packed_dump_that_ends_at_any_byte_is_answered() -> None:
    packed = gzip.compress(small_dump(8), mtime=0)
    for end in range(0, len(packed), 3):
        known = Subject("x", end)
        try:
            analyze(
                InMemory(packed[:end]), known, LIMIT, wishes=Wishes(), step=lambda _title: lambda _bytes: None
            )
        except DumpagentError:
            pass


def analyzed(content: bytes) -> Analysis:
    known = Subject("x", len(content))
    return analyze(InMemory(content), known, LIMIT, wishes=Wishes(), step=lambda _title: lambda _bytes: None)


def cached(sessions: int) -> bytes:
    heap = Heap()
    return heap.dump(heap.array([heap.session(heap.values(1000), 0) for _ in range(sessions)]))


def test_the_last_whole_one_of_several_snapshots_is_analyzed() -> None:
    """Before, `inspect` counted the last one and `analyze` the first."""
    first, last = cached(3), cached(50)
    both = first + last[Maker().dump(segments=0).index(b"\0") + 13 :]
    analysis = analyzed(both)
    assert analysis.dump.snapshots == 2
    assert analysis.heap.objects == analyzed(last).heap.objects
    assert analyzed(both[:-40]).heap.objects == analyzed(first).heap.objects


def test_a_segment_without_records_is_passed() -> None:
    whole = cached(20)
    empty = whole[: -len(record(END))] + record(SEGMENT) + record(END)
    assert analyzed(empty).heap == analyzed(whole).heap
    assert analyzed(empty).dump.state == "complete"


def test_an_object_without_an_address_costs_itself_alone() -> None:
    """Before, one identifier of 0 made a dump one that cannot be analyzed."""
    whole = cached(200)
    for number in (0, 0xFFFFFFFFFFFFFFF8):
        odd = b"\x23" + struct.pack(">QIIB", number, 0, 1, 8) + b"x"
        analysis = analyzed(whole[: -len(record(END))] + record(SEGMENT, odd) + record(END))
        assert analysis.suspects[0].holder == analyzed(whole).suspects[0].holder
