"""Leads a reader of heap records through all heap segments of a dump, and of what lies between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dumpagent.analyze.heap.stream import Buffer, Stream
from dumpagent.analyze.native import Array
from dumpagent.hprof import records
from dumpagent.hprof.walk import unwrapped

Other = Callable[[int, bytes], None]
Strings = Callable[[Array, int, int], int]
_LONGEST_BODY = 4 << 20  # of a record outside the heap that is looked at


class HeapReader(Protocol):
    """Reads heap records from a buffer."""

    def read(self, content: Array, position: int, end: int) -> int:
        """Give where the first record begins that is not all there. Raises DamagedSegment."""
        ...

    @property
    def between_records(self) -> bool:
        """Whether the last record was read to its end."""
        ...


class DamagedSegment(ValueError):
    """Heap records make no sense from some byte on; `str()` is a clause for a person."""


@dataclass(frozen=True, slots=True)
class Passed:
    """What a walk through a dump came to. `damage` is a clause, empty if the dump is whole.

    `snapshots` are in the file; the last one that is whole is number `whole`, 0 if none is.
    """

    damage: str
    snapshots: int
    whole: int


def read_heap(
    stream: Stream,
    reader: HeapReader,
    *,
    other: Other | None = None,
    strings: Strings | None = None,
    wanted: int = 1,
) -> Passed:
    """Give the heap records of one snapshot to `reader`, string records in runs to `strings`, others to `other`.

    A file may hold several snapshots, each a heap of its own (hprof agent of JDK 8 and older): `wanted` is the one that
    is read. Raises OSError.
    """
    buffer = Buffer(stream)
    buffer.need(records.HEADER_MOST_BYTES)
    header = records.read_header(buffer.content[: records.HEADER_MOST_BYTES].tobytes())
    if header is None:
        return Passed("it ends inside the header", 0, 0)
    buffer.position = header.size_bytes
    snapshot, ended, seen, whole = 1, True, False, 0
    damage = ""
    try:
        while True:
            if not buffer.need(records.RECORD_BYTES):
                if buffer.left or not ended:
                    damage = "it ends inside a record" if buffer.left else "it ends without an END record"
                break
            if strings and buffer.content[buffer.position] == records.STRING:
                passed = strings(buffer.content, buffer.position, buffer.end)
                if passed > buffer.position:
                    buffer.position = passed
                    continue
                if not buffer.more():
                    raise DamagedSegment("it ends inside a record")
                continue
            tag, length = records.RECORD.unpack(buffer.take(records.RECORD_BYTES))
            if tag in (records.HEAP_DUMP_SEGMENT, records.HEAP_DUMP):
                if seen and ended:
                    snapshot += 1
                seen, ended = True, tag == records.HEAP_DUMP
                if ended:
                    length = unwrapped(length, _at(buffer), stream.size_bytes)
                if snapshot == wanted:
                    _segment(buffer, reader, length)
                elif not buffer.skip(length):
                    raise DamagedSegment("it ends inside a heap segment")
                whole = snapshot if ended else whole
            elif tag == records.HEAP_DUMP_END:
                ended, whole = True, snapshot if seen else 0
            elif tag not in _KNOWN:
                raise DamagedSegment(
                    f"a record of the unknown kind {tag:#04x} stands before byte {_at(buffer)}"
                )
            elif other is None or length > _LONGEST_BODY:
                if not buffer.skip(length):
                    raise DamagedSegment("it ends inside a record")
            else:
                body = buffer.take(length)
                if len(body) < length:
                    raise DamagedSegment("it ends inside a record")
                other(tag, body)
    except (DamagedSegment, BufferError) as error:
        damage = str(error)
    return Passed(stream.problem or damage, snapshot if seen else 0, whole)


# Heap records begin with none of these: a segment of no length before one of them is empty, not one that was never filled.
_BEHIND_EMPTY = (records.HEAP_DUMP_SEGMENT, records.HEAP_DUMP_END)
_KNOWN = frozenset(records.length_limits(8))


def _at(buffer: Buffer) -> int:
    return buffer.offset + buffer.position


def _segment(buffer: Buffer, reader: HeapReader, length: int) -> None:
    left = length
    if length == 0 and not (buffer.need(1) and buffer.content[buffer.position] in _BEHIND_EMPTY):
        raise DamagedSegment("it ends in a heap segment whose length was never filled in")
    while left:
        end = buffer.position + min(left, buffer.left)
        passed = reader.read(buffer.content, buffer.position, end) - buffer.position
        buffer.position += passed
        left -= passed
        if left == 0:
            break
        if left <= buffer.left:
            raise DamagedSegment(
                f"an object reaches over the end of its segment at byte {_at(buffer) + left}"
            )
        if not buffer.more():
            raise DamagedSegment(f"it ends at byte {_at(buffer) + buffer.left}, inside a heap segment")
    if not reader.between_records:
        raise DamagedSegment(f"an object reaches over the end of its segment at byte {_at(buffer)}")
