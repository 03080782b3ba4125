"""The walk over a dump's top-level records, which tells whether they tile the file up to an END record.

It skips heap records by their lengths, so a gigabyte costs milliseconds; it can stop at any record and go on later,
also when the file has grown meanwhile.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dumpagent.hprof import records
from dumpagent.hprof.facts import Gathered
from dumpagent.hprof.source import ByteSource, KeepOn

# What one call reads at most: about 0.3 s for a file made of the smallest records, all of a usual dump.
LOOK_BYTES = 16 << 20
# A dump has 1 to 30 MB of records outside the heap; a million virtual threads with their frames come to 1.3 GB in 25
# million records. Above these a file is not written by a JVM: 40 million records cost 12 to 20 s of CPU.
SMALL_RECORDS_MOST_BYTES = 4 << 30
SMALL_RECORDS_MOST = 40_000_000
_RANGES_MOST = 1024
# A string record of the greatest length fits into it, so only records that are cut off make no progress.
_READ_BYTES = 256 * 1024
_PEEK_BYTES = 64
# Heap records begin with none of these: a segment of no length before one of them is empty, not one that was never filled.
_BEHIND_EMPTY = (records.HEAP_DUMP_SEGMENT, records.HEAP_DUMP_END)
_SKIP_BYTES = 4096  # heap records that are longer are not read to find the next
_READ_COST_BYTES = 512


class Shape(enum.Enum):
    """What the records of a file look like; it says nothing on whether somebody still writes."""

    COMPLETE = "complete"
    OPEN = "open"  # ends between two records, and no END
    CUT = "cut"  # ends inside a record, or in a segment whose length was not filled in
    BROKEN = "broken"  # has something that no dump has
    FOREIGN = "foreign"  # does not begin like a dump
    EMPTY = "empty"
    UNFINISHED = "unfinished"  # the walk has not come to the end yet: go on


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot of the heap: the offset of its first heap record, how many there are, where it ends.

    A file has several when the agent of JDK 5 to 8 (-agentlib:hprof) wrote it: each is a whole heap.
    """

    start: int
    segments: int
    end: int


@dataclass(frozen=True, slots=True)
class HeapRecord:
    """A HEAP DUMP or HEAP DUMP SEGMENT record: its body lies at `offset`, in the file's snapshot number `snapshot`."""

    offset: int
    length: int
    snapshot: int


@dataclass(frozen=True, slots=True)
class Walked:
    """What a walk has found so far; `reason` is a clause for a person."""

    shape: Shape
    reason: str


class Walk:
    """A walk over one file, as far as it has come: `offset` is where the next record begins.

    `ranges` are the stretches of records outside the heap, from start to stop.
    """

    def __init__(self) -> None:
        self.header: records.Header | None = None
        self.gathered: Gathered | None = None
        self.offset = 0
        self.heap_bytes = 0
        self.ranges: list[tuple[int, int]] = []
        self.snapshots = 0  # how many have begun
        self.heap_record: HeapRecord | None = None  # the last one
        self._open = False  # the last one's END was not met yet
        self._start = self._segments = 0  # of the last one
        self._whole: Snapshot | None = None  # the last one that is
        self.legacy = False  # the snapshot is one HEAP DUMP record, which no END follows
        self._want_bytes = _READ_BYTES
        self._small_bytes = self._small_records = 0
        self._limits: dict[int, tuple[int, int]] = {}

    def advance(
        self,
        source: ByteSource,
        *,
        size_bytes: int | None = None,
        budget_bytes: int = LOOK_BYTES,
        head_only: bool = False,
        each_heap_record: bool = False,
        keep_on: KeepOn = lambda _bytes: True,
    ) -> Walked:
        """Walk on, reading at most about `budget_bytes`, and no further once `keep_on` says no.

        With `head_only` it stops at the first heap record, with `each_heap_record` behind each: UNFINISHED, and
        `heap_record` is new. `size_bytes` is the file's size if it is known: only old dumps whose one length
        overflowed need it. A file that became smaller or was written anew needs a new walk. Raises OSError.
        """
        if self.header is None:
            stop = self._begin(source)
            if stop:
                return stop
        stuck = False
        while budget_bytes > 0 or stuck:
            if head_only and self.heap_begun:
                return Walked(Shape.UNFINISHED, "its heap records follow")
            # Reading from one byte before tells "ends exactly here" from "ended before here" without asking a size.
            want = self._want_bytes if stuck else min(self._want_bytes, max(_PEEK_BYTES, budget_bytes))
            chunk = source.read_at(self.offset - 1, want + 1)
            budget_bytes -= len(chunk) + _READ_COST_BYTES
            if len(chunk) <= 1:
                return self._at_end(chunk)
            before, seen = self.offset, self.heap_record
            stop = self._take(chunk, size_bytes, each_heap_record)
            if stop:
                return stop
            if each_heap_record and self.heap_record is not seen:
                return Walked(Shape.UNFINISHED, "its heap records follow")
            stuck = self.offset == before
            if stuck:
                if len(chunk) <= want:
                    return self._cut("it ends inside a record")
                self._want_bytes = _READ_BYTES
            if not keep_on(len(chunk)):
                break
        return Walked(Shape.UNFINISHED, f"{self.offset} bytes are looked through so far")

    def _begin(self, source: ByteSource) -> Walked | None:
        start = source.read_at(0, records.HEADER_MOST_BYTES)
        try:
            self.header = records.read_header(start)
        except records.NotHprof as error:
            return Walked(Shape.FOREIGN, str(error))
        if self.header is None:
            if start:
                return Walked(Shape.CUT, "it ends inside the header")
            return Walked(Shape.EMPTY, "it is empty")
        self.offset = self.header.size_bytes
        self._limits = records.length_limits(self.header.id_size)
        self.gathered = Gathered(self.header.id_size)
        return None

    @property
    def heap_begun(self) -> bool:
        """Whether a heap record was met, so that what comes before the heap has been seen."""
        return self.snapshots > 0

    @property
    def chosen(self) -> Snapshot | None:
        """The snapshot that counts: the last whole one, else the one that has begun."""
        if self._open and (self.legacy or not self._whole):
            return Snapshot(self._start, self._segments, self.offset)
        return self._whole

    @property
    def segments(self) -> int:
        """How many heap segments the chosen snapshot has; a HEAP DUMP record of old formats is one."""
        return self.chosen.segments if self.chosen else 0

    def _at_end(self, chunk: bytes) -> Walked:
        if not chunk:
            return self._cut("it ends inside a record")
        if not self._open and self._whole:
            return Walked(Shape.COMPLETE, f"{self._counted()}{_some(self.segments)}, END record present")
        if self._open and self.legacy:
            reason = "its HEAP DUMP record fills it to the end; its format has no END record"
            return Walked(Shape.COMPLETE, self._counted() + reason)
        return Walked(
            Shape.OPEN, f"it ends at byte {self.offset} without an END record" + self._one_is_whole()
        )

    def _counted(self) -> str:
        return f"{self.snapshots} snapshots in one file, the last one counts: " if self.snapshots > 1 else ""

    def _one_is_whole(self) -> str:
        return f"; of its {self.snapshots} snapshots all but the last are whole" if self._whole else ""

    def _cut(self, reason: str) -> Walked:
        return Walked(Shape.CUT, f"{reason}, after {_some(self._segments)}" + self._one_is_whole())

    def _take(self, chunk: bytes, size_bytes: int | None, each_heap_record: bool) -> Walked | None:
        """Pass the records whose start lies in `chunk`, which begins one byte before `offset`."""
        assert self.gathered is not None  # noqa: S101 - made together with the header
        base, at, end = self.offset - 1, 1, len(chunk)
        small_since = at
        stop: Walked | None = None
        while at + records.RECORD_BYTES <= end:
            tag, length = records.RECORD.unpack_from(chunk, at)
            least, most = self._limits.get(tag, (1, 0))
            if not least <= length <= most:
                stop = self._broken(base + at, tag, length)
                break
            following = at + records.RECORD_BYTES + length
            if tag == records.STRING and following <= end:
                at = self._take_strings(chunk, at)
                continue
            if tag == records.HEAP_DUMP_SEGMENT or tag == records.HEAP_DUMP:
                if at > small_since:
                    self._pass_small(base, small_since, at)
                if length == 0 and tag == records.HEAP_DUMP_SEGMENT and following >= end and at > 1:
                    break  # what follows tells whether it is empty or was never filled
                is_empty = following < end and chunk[following] in _BEHIND_EMPTY
                stop = self._take_heap(tag, base + at, length, size_bytes, is_empty=is_empty)
                if stop:
                    small_since = at
                    break
                small_since = at = self.offset - base
                if each_heap_record:
                    self.heap_record = HeapRecord(
                        base + following - length, self.offset - base - following + length, self.snapshots
                    )
                if each_heap_record or at > end:
                    break
                continue
            if tag == records.HEAP_DUMP_END:
                if not self._open or self.legacy:
                    stop = Walked(
                        Shape.BROKEN, f"at byte {base + at} stands an END record with no heap before it"
                    )
                    break
                self._whole, self._open = Snapshot(self._start, self._segments, base + following), False
            elif following > end and (length <= _READ_BYTES // 2 or end - at < 64):
                break
            else:
                self._gather(tag, chunk, base, at, length)
            at = following
        else:
            if at < end and chunk[at] not in self._limits:
                stop = self._broken(base + at, chunk[at], None)
        self._pass_small(base, small_since, at)
        self.offset = base + at
        if stop is None and (
            self._small_records > SMALL_RECORDS_MOST or self._small_bytes > SMALL_RECORDS_MOST_BYTES
        ):
            stop = Walked(Shape.BROKEN, "it has more records outside the heap than any JVM writes")
        return stop

    def _take_strings(self, chunk: bytes, first: int) -> int:
        """Pass the strings that follow each other in `chunk`, of which the first is whole; give where they end."""
        assert self.gathered is not None  # noqa: S101 - made together with the header
        unpack, end = records.RECORD.unpack_from, len(chunk)
        least, most = self._limits[records.STRING]
        at, count, tag, length = first, 0, records.STRING, unpack(chunk, first)[1]
        while tag == records.STRING and least <= length <= most:
            following = at + records.RECORD_BYTES + length
            if following > end:
                break
            at, count = following, count + 1
            if at + records.RECORD_BYTES > end:
                break
            tag, length = unpack(chunk, at)
        self.gathered.pass_strings(chunk, first, at, count)
        self._small_records += count
        return at

    def _take_heap(
        self, tag: int, offset: int, length: int, size_bytes: int | None, *, is_empty: bool
    ) -> Walked | None:
        """Pass the heap record at `offset`; one of no length `is_empty`, or its writer never came to fill it."""
        assert self.gathered is not None  # noqa: S101 - made together with the header
        body = offset + records.RECORD_BYTES
        if tag == records.HEAP_DUMP:
            length = unwrapped(length, body, size_bytes)
        if length == 0 and not (tag == records.HEAP_DUMP_SEGMENT and is_empty):
            return self._cut("it ends in a heap segment whose length was never filled in")
        self.gathered.heap_start = self.gathered.heap_start or offset
        if not self._open or tag == records.HEAP_DUMP:
            if self._open:
                self._whole = Snapshot(self._start, self._segments, offset)
            self.snapshots += 1
            self._open, self._start, self._segments = True, offset, 0
        self.legacy = tag == records.HEAP_DUMP
        self._segments += 1
        self.heap_bytes += length
        self.offset = body + length
        self._want_bytes = _PEEK_BYTES if length > _SKIP_BYTES else _READ_BYTES
        return None

    def _gather(self, tag: int, chunk: bytes, base: int, at: int, length: int) -> None:
        gathered, body = self.gathered, at + records.RECORD_BYTES
        assert gathered is not None  # noqa: S101 - made together with the header
        self._small_records += 1
        if tag == records.LOAD_CLASS:
            gathered.pass_class(chunk, body)
        elif tag == records.FRAME:
            gathered.pass_frame(chunk, body)
        elif tag == records.TRACE:
            self._small_records += 3  # costs as much
            gathered.pass_trace(chunk, body, base + body, length)
        elif tag == records.START_THREAD:
            gathered.by_agent = True

    def _pass_small(self, base: int, start: int, stop: int) -> None:
        """Note that records outside the heap stand from `start` to `stop` of what begins at `base`."""
        if stop <= start:
            return
        self._small_bytes += stop - start
        start, stop = base + start, base + stop
        if self.ranges and (self.ranges[-1][1] == start or len(self.ranges) >= _RANGES_MOST):
            start = self.ranges.pop()[0]
        self.ranges.append((start, stop))

    def _broken(self, offset: int, tag: int, length: int | None) -> Walked:
        if tag not in self._limits:
            what = f"a record of the unknown kind {tag:#04x}"
        elif tag == records.STRING:
            what = f"a string of {length} bytes"
        else:
            what = f"a record of kind {tag:#04x} and {length} bytes"
        return Walked(Shape.BROKEN, f"at byte {offset} stands {what}, which no dump has there")


def _some(segments: int) -> str:
    return f"{segments} heap segment{'s' * (segments != 1)}"


def unwrapped(length: int, body: int, size_bytes: int | None) -> int:
    """Give the length of a HEAP DUMP body that fills the file but is longer than its 32-bit length can say."""
    if size_bytes is None or size_bytes - body <= 0xFFFFFFFF or (size_bytes - body - length) % (1 << 32):
        return length
    return size_bytes - body
