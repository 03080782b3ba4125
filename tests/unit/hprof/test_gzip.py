"""Gzip dumps: every member of a killed JVM's dump is whole, so only its end tells, and the end must be sure."""

from __future__ import annotations

import gzip
import random
import time

import pytest

from dumpagent.hprof.gzip import NotYet, Tail, Unpacked, read_tail
from dumpagent.hprof.look import Look
from dumpagent.hprof.source import InMemory
from dumpagent.hprof.walk import Shape
from tests.harness.hprof import END, Maker, members, record

MAKE = Maker()
NOISE = random.Random(1).randbytes(60_000)


def look(packed: bytes) -> Shape:
    return Look(InMemory(packed)).advance(len(packed), budget_bytes=None).shape


def tail(packed: bytes) -> Tail:
    return read_tail(InMemory(packed), len(packed))


@pytest.mark.parametrize("block_bytes", [50, 1000, 65536, 1 << 20])
def test_a_gzip_dump_is_complete_however_it_is_cut_into_members(block_bytes: int) -> None:
    assert look(members(MAKE.dump(segments=30), block_bytes)) is Shape.COMPLETE


def test_a_dump_in_whole_members_without_its_end_is_not_complete() -> None:
    """`gunzip -t` says 0 to it."""
    content = MAKE.dump(segments=30, segment_bytes=5000)
    for cut in (len(content) - 9, len(content) // 2, len(content) - 1):
        packed = members(content[:cut], 4096)
        assert gzip.decompress(packed) == content[:cut]
        assert look(packed) in (Shape.OPEN, Shape.CUT)


def test_every_shorter_prefix_of_a_gzip_dump_is_incomplete() -> None:
    packed = members(MAKE.dump(), 300)
    for size in range(1, len(packed)):
        assert look(packed[:size]) in (Shape.OPEN, Shape.CUT), size
    assert look(packed) is Shape.COMPLETE


def test_a_heap_that_happens_to_end_like_an_end_record_is_not_taken_for_one() -> None:
    content = MAKE.head() + record(0x1C, NOISE + record(END) + NOISE)
    packed = members(content[: -len(NOISE)], 65536)
    assert tail(packed) is Tail.UNSURE
    assert look(packed) is Shape.CUT


def test_the_end_of_a_large_dump_is_found_without_unpacking_it() -> None:
    content = MAKE.head() + b"".join(record(0x1C, NOISE) for _ in range(80)) + record(END)
    assert tail(members(content)) is Tail.ENDED
    assert tail(members(content, 1 << 20)) is Tail.ENDED
    assert tail(members(content[:-9]) + gzip.compress(content[-9:])) is Tail.ENDED  # as JDK 25 does
    assert tail(members(content[:-4]) + gzip.compress(content[-4:])) is Tail.ENDED
    assert tail(members(content[:-9])) is Tail.OPEN


def test_a_dump_that_somebody_compressed_as_one_member_is_unpacked_to_know() -> None:
    content = MAKE.head() + b"".join(record(0x1C, NOISE) for _ in range(90)) + record(END)
    packed = gzip.compress(content, 1)
    assert tail(packed) is Tail.UNSURE
    looking, steps = Look(InMemory(packed)), 0
    while (walked := looking.advance(len(packed), budget_bytes=1 << 19)).shape is Shape.UNFINISHED:
        steps += 1
    assert walked.shape is Shape.COMPLETE
    assert steps > 5
    assert look(packed[:-3]) is Shape.CUT
    assert look(packed[:-1000]) is Shape.CUT


@pytest.mark.parametrize("at", [-1, -5, -8])
def test_a_wrong_checksum_or_length_is_damage(at: int) -> None:
    packed = bytearray(members(MAKE.dump(segments=10)))
    packed[at] ^= 0x40
    assert look(bytes(packed)) is Shape.BROKEN


def test_a_gzip_dump_of_format_1_0_1_has_no_end_record_to_look_for() -> None:
    content = Maker(version="1.0.1").head() + record(0x0C, bytes(1000))
    assert look(members(content, 100)) is Shape.COMPLETE
    assert look(members(content[:-1], 100)) is Shape.CUT


def test_bytes_behind_the_last_member_are_damage() -> None:
    assert look(members(MAKE.dump()) + b"rubbish that is no gzip member") is Shape.BROKEN


def test_gzip_of_something_else_is_no_dump() -> None:
    assert look(gzip.compress(b"just text " * 100)) is Shape.FOREIGN
    assert look(gzip.compress(b"")) is Shape.FOREIGN


def test_a_bomb_is_unpacked_in_small_pieces_only() -> None:
    """Zeros pack into a thousandth of their size."""
    bomb = gzip.compress(MAKE.head() + bytes(20 << 20), 1)
    looking = Look(InMemory(bomb))
    walked = looking.advance(len(bomb))
    assert walked.shape is Shape.BROKEN
    assert looking.unpacked is not None
    assert len(looking.unpacked._window) <= 1 << 20


def test_unpacked_bytes_are_read_at_any_offset_in_any_order() -> None:
    content = random.Random(2).randbytes(700_000)
    unpacked = Unpacked(InMemory(members(content, 10_000)))
    for offset, size in [
        (0, 10),
        (5, 300_000),
        (299_000, 2000),
        (699_990, 100),
        (0, 20),
        (700_000, 5),
        (800_000, 5),
    ]:
        assert unpacked.read_at(offset, size) == content[offset : offset + size]
    assert unpacked.whole
    assert unpacked.problem is None


def test_an_allowance_that_is_used_up_stops_and_loses_nothing() -> None:
    content = bytes(5_000_000)
    unpacked = Unpacked(InMemory(gzip.compress(content)))
    unpacked.allowance_bytes = 1_000_000
    with pytest.raises(NotYet):
        unpacked.read_at(4_000_000, 10)
    unpacked.allowance_bytes = None
    assert unpacked.read_at(4_999_995, 10) == bytes(5)


def test_a_tail_made_of_what_looks_like_segments_costs_no_more_than_a_moment() -> None:
    """160 members of nothing but segment starts were searched again with each member: 20 s and more."""
    around = bytes([0x1C]) + bytes(4)
    tail = gzip.compress(around * 5000, 1, mtime=0) * 170 + gzip.compress(
        around * 5000 + record(END), 1, mtime=0
    )
    began = time.process_time()
    assert read_tail(InMemory(tail), len(tail)) is Tail.UNSURE
    assert time.process_time() - began < 1.0


def test_a_million_empty_members_are_passed_in_time_and_can_be_stopped() -> None:
    empty = gzip.compress(b"", 1, mtime=0)
    content = empty * 100_000 + members(Maker().dump())
    began, looking = time.process_time(), Look(InMemory(content))
    calls = iter(range(1 << 30))
    stopped = looking.advance(len(content), budget_bytes=1 << 40, keep_on=lambda _bytes: next(calls) < 1000)
    assert stopped.shape is Shape.UNFINISHED
    assert time.process_time() - began < 0.5
    assert looking.advance(len(content), budget_bytes=None).shape is Shape.COMPLETE
    assert time.process_time() - began < 5.0
