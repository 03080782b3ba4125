"""The walk: only a file whose records tile it up to END is whole, and no file, however made, holds it up."""

from __future__ import annotations

import struct
import time

import pytest

from dumpagent.dumps.model import Cause
from dumpagent.hprof.facts import facts_of, oom_stack
from dumpagent.hprof.source import InMemory
from dumpagent.hprof.walk import Shape, Walk, Walked
from tests.harness.hprof import END, HEAP_DUMP, NOON_MS, SEGMENT, STRING, TRACE, Maker, record

MAKE = Maker()


def walk(content: bytes) -> Walked:
    return Walk().advance(InMemory(content), size_bytes=len(content))


@pytest.mark.parametrize("make", [Maker(), Maker(id_size=4), Maker(version="1.0.1"), Maker(version="1.0.3")])
def test_a_dump_that_is_tiled_up_to_its_end_record_is_complete(make: Maker) -> None:
    assert walk(make.dump()).shape is Shape.COMPLETE


def test_every_shorter_prefix_of_a_dump_is_incomplete() -> None:
    content = MAKE.dump(segments=2, segment_bytes=40)
    for size in range(1, len(content)):
        shape = walk(content[:size]).shape
        assert shape in (Shape.OPEN, Shape.CUT), size
    assert walk(content[: -len(record(END))]).shape is Shape.OPEN


def test_an_empty_file_is_told_from_a_dump_that_was_cut() -> None:
    assert walk(b"").shape is Shape.EMPTY
    assert walk(b"JAVA PRO").shape is Shape.CUT


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04",
        b"\0" * 100,
        b"JAVA PROFILE 2.0.0\0" + bytes(12),
        b"JAVA PROFILE " + b"1" * 50,
        b"JAVA PROFILF",
    ]
    + [b"JAVA PROFILE 1.0.2\0" + struct.pack(">IQ", size, 0) for size in (0, 1, 5, 16, 0xFFFFFFFF)],
)
def test_what_does_not_begin_like_a_dump_is_no_dump(content: bytes) -> None:
    assert walk(content).shape is Shape.FOREIGN


def test_a_segment_whose_length_was_never_patched_is_an_open_end() -> None:
    """JDK 11.0.10 seeks back to fill lengths in; a JVM killed before that leaves a 0."""
    assert walk(MAKE.head() + MAKE.segment() + record(SEGMENT, bytes(50), length=0)).shape is Shape.CUT
    assert walk(MAKE.head() + record(SEGMENT, bytes(50), length=0) + record(END)).shape is Shape.CUT


def test_a_length_that_is_patched_later_is_taken_up_by_the_same_walk() -> None:
    source = InMemory(MAKE.head() + record(SEGMENT, bytes(50), length=0))
    walking = Walk()
    assert walking.advance(source).shape is Shape.CUT
    source.content = MAKE.head() + record(SEGMENT, bytes(50)) + record(END)
    assert walking.advance(source).shape is Shape.COMPLETE


def test_a_walk_goes_on_where_it_stood_as_the_file_grows_byte_by_byte() -> None:
    content = MAKE.dump(segments=2, segment_bytes=40)
    source, walking = InMemory(b""), Walk()
    for size in range(len(content)):
        source.content = content[:size]
        assert walking.advance(source).shape in (Shape.EMPTY, Shape.OPEN, Shape.CUT), size
    source.content = content
    assert walking.advance(source).shape is Shape.COMPLETE
    assert walking.gathered is not None
    assert walking.gathered.strings == 7
    assert walking.gathered.classes == 2
    assert walking.gathered.threads == 2
    assert walking.segments == 2


def test_a_small_budget_gives_the_same_answer_in_more_steps() -> None:
    content = MAKE.dump(segments=500, segment_bytes=2000)
    source, walking, steps = InMemory(content), Walk(), 0
    while (walked := walking.advance(source, budget_bytes=1000)).shape is Shape.UNFINISHED:
        steps += 1
    assert walked.shape is Shape.COMPLETE
    assert steps > 100


def test_a_file_that_shrinks_underneath_is_incomplete() -> None:
    content = MAKE.dump(segments=3, segment_bytes=1000)
    source, walking = InMemory(content[:-500]), Walk()
    assert walking.advance(source).shape is Shape.CUT
    source.content = content[:400]
    assert walking.advance(source).shape is Shape.CUT


@pytest.mark.parametrize(
    "tail",
    [
        b"\0",
        record(END) + b"x",
        record(END) + record(END),
        record(0x00, bytes(100)),
        record(0x77),
        record(STRING, b"short"),
        record(STRING, b"", length=0x7FFFFFFF),
        record(0x02, bytes(23)),
        record(END, bytes(1)),
        record(END, b"", length=0xFFFFFFFF),
        bytes(5000),
    ],
)
def test_what_no_dump_has_is_never_complete(tail: bytes) -> None:
    assert walk(MAKE.head() + MAKE.segment() + tail).shape in (Shape.BROKEN, Shape.CUT)
    assert walk(MAKE.head() + MAKE.segment() + record(END) + tail).shape is Shape.BROKEN


def test_an_end_without_a_heap_is_not_complete() -> None:
    assert walk(MAKE.head() + record(END)).shape is Shape.BROKEN


@pytest.mark.parametrize("length", [1, 100, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_a_length_that_points_behind_the_end_is_a_cut(length: int) -> None:
    assert walk(MAKE.head() + record(SEGMENT, b"", length=length)).shape is Shape.CUT


def test_format_1_0_1_needs_no_end_record() -> None:
    """JDK 8 and older write small heaps as one HEAP DUMP record, whose length comes last."""
    head = Maker(version="1.0.1").head()
    assert walk(head + record(HEAP_DUMP, bytes(100))).shape is Shape.COMPLETE
    assert walk(head + record(HEAP_DUMP, bytes(100), length=101)).shape is Shape.CUT
    assert walk(head + record(HEAP_DUMP, bytes(100), length=0)).shape is Shape.CUT
    assert walk(head).shape is Shape.OPEN


class Sparse:
    """Bytes at offsets with nothing but zeros between them."""

    def __init__(self, size_bytes: int, **pieces: bytes) -> None:
        self.size_bytes, self.read = size_bytes, 0
        self.pieces = {int(at[1:]): piece for at, piece in pieces.items()}

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        wanted = bytearray(max(0, min(size_bytes, self.size_bytes - offset)))
        self.read += len(wanted)
        for at, piece in self.pieces.items():
            for number, byte in enumerate(piece):
                if 0 <= at + number - offset < len(wanted):
                    wanted[at + number - offset] = byte
        return bytes(wanted)


def test_a_length_that_overflowed_its_32_bits_is_understood() -> None:
    """Old JVMs wrote HEAP DUMP records of more than 4 GiB, whose length is what was left of it."""
    head = Maker(version="1.0.1").head()
    body_bytes = (1 << 32) + 1000
    source = Sparse(len(head) + 9 + body_bytes, _0=head + record(HEAP_DUMP, length=1000))
    assert Walk().advance(source, size_bytes=source.size_bytes).shape is Shape.COMPLETE
    assert Walk().advance(source, size_bytes=source.size_bytes + 1).shape is not Shape.COMPLETE


def test_ten_sparse_gibibytes_cost_no_more_than_one_read() -> None:
    source = Sparse(10 << 30, _0=MAKE.head())
    assert Walk().advance(source, size_bytes=source.size_bytes).shape is Shape.BROKEN
    assert source.read < 1 << 20
    source = Sparse(10 << 30, _0=MAKE.head() + record(SEGMENT, length=0xFFFFFFF0))
    assert Walk().advance(source, size_bytes=source.size_bytes).shape is Shape.BROKEN
    assert source.read < 1 << 20


def test_a_file_of_nothing_but_the_smallest_records_ends_in_bounded_steps() -> None:
    head, record_ = MAKE.head(), record(STRING, bytes(8))

    class Endless:
        def read_at(self, offset: int, size_bytes: int) -> bytes:
            if offset < len(head):
                return (head + record_ * 16000)[offset : offset + size_bytes]
            phase = (offset - len(head)) % len(record_)
            return (record_ * (size_bytes // len(record_) + 2))[phase : phase + size_bytes]

    walking, began = Walk(), time.process_time()
    assert walking.advance(Endless(), budget_bytes=1 << 20).shape is Shape.UNFINISHED
    assert time.process_time() - began < 1
    walking._small_bytes = 1 << 32  # as if it had gone on for long
    assert walking.advance(Endless()).shape is Shape.BROKEN


def test_a_very_deep_stack_is_walked_over() -> None:
    deep = MAKE.trace(9, 9, range(300_000))
    assert walk(MAKE.head() + deep + MAKE.segment() + record(END)).shape is Shape.COMPLETE
    assert walk(MAKE.head() + deep[:-1]).shape is Shape.CUT
    assert walk(MAKE.head() + record(TRACE, bytes(12), length=0xFFFFFFFF)).shape is Shape.CUT


@pytest.mark.parametrize("make", [Maker(), Maker(id_size=4)])
def test_the_records_before_the_heap_tell_who_wrote_the_dump_and_why(make: Maker) -> None:
    source, walking = InMemory(make.dump()), Walk()
    walking.advance(source)
    assert walking.header is not None
    assert walking.gathered is not None
    facts = facts_of(walking.header, walking.gathered, all_seen=True)
    assert facts.format == "JAVA PROFILE 1.0.2"
    assert facts.id_size == make.id_size
    assert facts.dump_time_ms == NOON_MS
    assert facts.jvm == 'openjdk version "21.0.8" 2025-07-15'
    assert facts.cause is Cause.OOM
    assert (facts.classes, facts.threads) == (2, 2)
    assert oom_stack(source, walking.header, walking.gathered, walking.ranges) == (
        "com.acme.Shop.fill(Shop.java:42)",
        "com.acme.Shop.run(Native Method)",
    )


def test_a_dump_without_the_made_up_frame_was_asked_for() -> None:
    walking = Walk()
    walking.advance(InMemory(MAKE.dump(oom=False)))
    assert walking.header is not None
    assert walking.gathered is not None
    assert facts_of(walking.header, walking.gathered, all_seen=True).cause is Cause.REQUEST
    assert facts_of(walking.header, walking.gathered, all_seen=False).cause is Cause.UNKNOWN


def cause_of(content: bytes) -> Cause:
    walking = Walk()
    walking.advance(InMemory(content))
    assert walking.gathered is not None
    return walking.gathered.cause(all_seen=True)


def test_a_dump_that_shows_no_stack_at_all_was_said_to_be_on_request() -> None:
    """JVMs before 7 and other writers have one empty trace alone: it cannot exclude an OutOfMemoryError."""
    bare = MAKE.header() + MAKE.string(1, "a") + MAKE.trace(1, 0)
    assert cause_of(bare + MAKE.segment() + record(END)) is Cause.UNKNOWN
    assert cause_of(MAKE.header() + MAKE.segment() + record(END)) is Cause.UNKNOWN


@pytest.mark.parametrize("before", [0, 1, 3])
def test_frames_and_traces_between_heap_segments_tell_the_cause_and_the_stack(before: int) -> None:
    """OpenJDK is about to write each thread's frames and trace where the thread is met in the heap."""
    head = MAKE.head()
    frames_at = head.index(record(TRACE, struct.pack(">III", 1, 0, 0)))
    names, stacks = head[:frames_at], head[frames_at:]
    content = names + MAKE.segment() * before + stacks + MAKE.segment() * 2 + record(END)
    source, walking = InMemory(content), Walk()
    assert walking.advance(source, size_bytes=len(content)).shape is Shape.COMPLETE
    assert walking.header is not None
    assert walking.gathered is not None
    assert walking.gathered.cause(all_seen=True) is Cause.OOM
    assert (walking.gathered.classes, walking.gathered.threads) == (2, 2)
    assert oom_stack(source, walking.header, walking.gathered, walking.ranges) == (
        "com.acme.Shop.fill(Shop.java:42)",
        "com.acme.Shop.run(Native Method)",
    )


def test_a_stack_that_is_deeper_than_what_is_kept_says_how_deep_it_is() -> None:
    head = MAKE.head(oom=False) + MAKE.frame(71, method=2, file=0, class_serial=1, line=-1)
    head = MAKE.head()[: -len(MAKE.trace(3, 2, [71, 72, 73]))] + MAKE.trace(3, 2, [71] + [72] * 5000)
    source, walking = InMemory(head + MAKE.segment() + record(END)), Walk()
    walking.advance(source)
    assert walking.header is not None
    assert walking.gathered is not None
    facts = facts_of(walking.header, walking.gathered, all_seen=True)
    assert facts.oom_frames == 5000
    assert len(oom_stack(source, walking.header, walking.gathered, walking.ranges)) == 1024


@pytest.mark.parametrize(
    "small", [record(STRING, bytes(8)), record(0x03, bytes(4)), record(SEGMENT, bytes(5))]
)
def test_a_walk_over_a_gibibyte_of_tiny_records_stops_when_it_is_told_to_and_goes_on_from_there(
    small: bytes,
) -> None:
    content = MAKE.head() + small * 300_000
    source, walking, asked = InMemory(content), Walk(), 0

    def keep_on(_bytes: int) -> bool:
        nonlocal asked
        asked += 1
        return False

    steps, longest_s = 0, 0.0
    while True:
        began = time.process_time()
        walked = walking.advance(source, size_bytes=len(content), budget_bytes=1 << 40, keep_on=keep_on)
        longest_s = max(longest_s, time.process_time() - began)
        if walked.shape is not Shape.UNFINISHED:
            break
        steps += 1
    assert walked.shape is Shape.OPEN
    assert steps == asked >= len(content) // (260 * 1024)
    assert longest_s < 0.3  # 0.02 to 0.04 on a quiet machine


def test_a_file_of_more_small_records_than_any_jvm_writes_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dumpagent.hprof.walk.SMALL_RECORDS_MOST", 1000)
    assert walk(MAKE.head() + record(STRING, bytes(8)) * 900).shape is Shape.OPEN
    assert walk(MAKE.head() + record(STRING, bytes(8)) * 1200).shape is Shape.BROKEN
