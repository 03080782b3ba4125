"""The walk over a dump's top-level records, which tells whether they tile the file up to an END record.

It skips heap records by their lengths, so a gigabyte costs milliseconds; it can stop at any record and go on later,
also when the file has grown meanwhile.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from dumpagent.hprof import records
from dumpagent.hprof.facts import Gathered
from dumpagent.hprof.source import ByteSource

# What one call reads at most: about 0.3 s for a file made of the smallest records, all of a usual dump.
LOOK_BYTES = 16 << 20
# A dump has 1 to 30 MB of records outside the heap; who has a gigabyte of them is not written by a JVM.
SMALL_RECORDS_MOST_BYTES = 1 << 30
# A string record of the greatest length fits into it, so only records that are cut off make no progress.
_READ_BYTES = 256 * 1024
_PEEK_BYTES = 64
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
class Walked:
    """What a walk has found so far; `reason` is a clause for a person."""

    shape: Shape
    reason: str


class Walk:
    """A walk over one file, as far as it has come: `offset` is where the next record begins."""

    def __init__(self) -> None:
        self.header: records.Header | None = None
        self.gathered: Gathered | None = None
        self.offset = 0
        self.segments = 0
        self.heap_bytes = 0
        self._legacy_heap_dump: tuple[int, int] | None = None  # a HEAP DUMP record's body: offset, length
        self._ended = False
        self._want_bytes = _READ_BYTES
        self._small_bytes = 0
        self._limits: dict[int, tuple[int, int]] = {}

    def advance(
        self,
        source: ByteSource,
        *,
        size_bytes: int | None = None,
        budget_bytes: int = LOOK_BYTES,
        head_only: bool = False,
    ) -> Walked:
        """Walk on, reading at most about `budget_bytes`; with `head_only` up to the first heap record.

        `size_bytes` is the file's size if it is known: only old dumps whose one length overflowed need it.
        A file that became smaller or was written anew needs a new walk. Raises OSError.
        """
        if self.header is None:
            start = source.read_at(0, records.HEADER_MOST_BYTES)
            try:
                self.header = records.read_header(start)
            except records.NotHprof as error:
                return Walked(Shape.FOREIGN, str(error))
            if self.header is None:
                return (
                    Walked(Shape.CUT, "it ends inside the header")
                    if start
                    else Walked(Shape.EMPTY, "it is empty")
                )
            self.offset = self.header.size_bytes
            self._limits = records.length_limits(self.header.id_size)
            self.gathered = Gathered(self.header.id_size)
        while budget_bytes > 0:
            if head_only and self.heap_begun:
                return Walked(Shape.UNFINISHED, "its heap records follow")
            # Reading from one byte before tells "ends exactly here" from "ended before here" without asking a size.
            chunk = source.read_at(self.offset - 1, self._want_bytes + 1)
            budget_bytes -= len(chunk) + _READ_COST_BYTES
            if len(chunk) <= 1 or self._ended:
                return self._at_end(chunk)
            before = self.offset
            stop = self._take(chunk, size_bytes)
            if stop:
                return stop
            if self.offset > before:
                continue
            if len(chunk) <= self._want_bytes:
                return self._cut("it ends inside a record")
            self._want_bytes = _READ_BYTES
        return Walked(Shape.UNFINISHED, f"{self.offset} bytes are looked through so far")

    @property
    def heap_begun(self) -> bool:
        """Whether a heap record was met, so that what comes before the heap has been seen."""
        return bool(self.segments or self._legacy_heap_dump)

    def _at_end(self, chunk: bytes) -> Walked:
        if not chunk:
            return self._cut("it ends inside a record")
        if len(chunk) > 1:
            return Walked(Shape.BROKEN, f"something follows the END record, from byte {self.offset} on")
        if self._ended and self.segments:
            return Walked(Shape.COMPLETE, f"its {self.segments} heap segments fill it up to the END record")
        if self._ended:
            return Walked(Shape.BROKEN, "it has an END record but no heap")
        if self._legacy_heap_dump and not self.segments:
            return Walked(
                Shape.COMPLETE, "its HEAP DUMP record fills it to the end; its format has no END record"
            )
        return Walked(Shape.OPEN, f"it ends at byte {self.offset} without an END record")

    def _cut(self, reason: str) -> Walked:
        return Walked(Shape.CUT, f"{reason}, after {self.segments} heap segments")

    def _take(self, chunk: bytes, size_bytes: int | None) -> Walked | None:
        """Pass the records whose start lies in `chunk`, which begins one byte before `offset`."""
        gathered = self.gathered
        assert gathered is not None  # noqa: S101 - made together with the header
        base, at, end = self.offset - 1, 1, len(chunk)
        unpack, small_since = records.RECORD.unpack_from, 1
        least_string, most_string = self._limits[records.STRING]
        stop: Walked | None = None
        while at + records.RECORD_BYTES <= end:
            tag, length = unpack(chunk, at)
            if tag == records.STRING:
                first, count = at, 0
                while least_string <= length <= most_string:
                    following = at + records.RECORD_BYTES + length
                    if following > end:
                        break
                    at, count = following, count + 1
                    if at + records.RECORD_BYTES > end:
                        break
                    tag, length = unpack(chunk, at)
                    if tag != records.STRING:
                        break
                gathered.pass_strings(chunk, first, at, count)
                if tag == records.STRING:
                    if not least_string <= length <= most_string:
                        stop = self._broken(base + at, f"a string of {length} bytes")
                    break
                continue
            if tag not in self._limits:
                stop = self._broken(base + at, f"a record of the unknown kind {tag:#04x}")
                break
            least, most = self._limits[tag]
            if not least <= length <= most:
                stop = self._broken(base + at, f"a record of kind {tag:#04x} and {length} bytes")
                break
            body = at + records.RECORD_BYTES
            if tag == records.HEAP_DUMP_SEGMENT or tag == records.HEAP_DUMP:
                gathered.heap_start = gathered.heap_start or base + at
                if length == 0:
                    stop = self._cut("it ends in a heap segment whose length was never filled in")
                    break
                if tag == records.HEAP_DUMP:
                    length = _unwrapped(length, base + body, size_bytes)
                    self._legacy_heap_dump = base + body, length
                else:
                    self.segments += 1
                self.heap_bytes += length
                at = body + length
                self._want_bytes = _PEEK_BYTES
                if at > end:
                    break
                small_since = at
                continue
            if tag == records.HEAP_DUMP_END:
                self._ended = True
                at = body
                break
            shown = end - body
            if shown < length and (length <= _READ_BYTES // 2 or shown < 64):
                break
            if tag == records.LOAD_CLASS:
                gathered.first_class = gathered.first_class or base + at
                gathered.pass_class(chunk, body)
            elif tag == records.FRAME:
                gathered.first_frame = gathered.first_frame or base + at
                gathered.pass_frame(chunk, body)
            elif tag == records.TRACE:
                gathered.pass_trace(chunk, body, base + body, length)
            at = body + length
        self._small_bytes += max(0, min(at, end) - small_since)
        if self._small_bytes > SMALL_RECORDS_MOST_BYTES and stop is None:
            stop = Walked(Shape.BROKEN, "it has more than 1 GiB of records outside the heap")
        self.offset = base + at
        return stop

    def _broken(self, offset: int, what: str) -> Walked:
        return Walked(Shape.BROKEN, f"at byte {offset} stands {what}, which no dump has there")


def _unwrapped(length: int, body: int, size_bytes: int | None) -> int:
    """Give the length of a HEAP DUMP body that fills the file but is longer than its 32-bit length can say."""
    if size_bytes is None or size_bytes - body <= 0xFFFFFFFF or (size_bytes - body - length) % (1 << 32):
        return length
    return size_bytes - body
