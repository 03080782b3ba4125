"""The first pass over a dump: counts, where records begin, the largest arrays, and what the classes declare."""

from __future__ import annotations

import heapq
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

from dumpagent.hprof.heap_scan import HeapScan
from dumpagent.hprof.records import (
    INSTANCE,
    OBJECT_ARRAY,
    OBJECT_TYPE,
    PRIMITIVE_ARRAY,
    PRIMITIVES,
    ROOT_THREAD,
    value_bytes,
)
from dumpagent.hprof.source import ByteSource

# 40 MB of heap records can be told apart with a piece each; what lies behind the last piece is not searched.
_PIECES_MOST = 300_000
_CLASS_BYTES_MOST = 20 << 20
_LARGE_ELEMENTS, _LARGE_BYTES = 64, 256 << 10
_LARGE_MOST = 48
_FIRST_MOST_BYTES, _LOCALS_MOST = 400, 50_000
FRAME_ROOTS = (0x02, 0x03, 0x04, 0x06)  # JNI local, Java frame, native stack, thread block
_U2, _U4 = struct.Struct(">H"), struct.Struct(">I")


@dataclass(frozen=True, slots=True, order=True)
class LargeArray:
    """An array with many elements, and where its record begins."""

    elements: int
    offset: int
    object_id: bytes
    class_id: bytes  # of a primitive array: none


@dataclass(frozen=True, slots=True)
class Declared:
    """What a CLASS DUMP says: fields as name identifier, type and offset of the value; statics as name and reference."""

    parent: bytes
    loader: bytes
    fields: tuple[tuple[bytes, int, int], ...]
    statics: tuple[tuple[bytes, bytes], ...]
    data_bytes: int


class Survey(HeapScan):
    """A scan that remembers, besides the counts, what a search for owners needs."""

    def __init__(
        self, source: ByteSource, id_size: int, *, class_of_classes: bytes | None, no_fields: set[bytes]
    ) -> None:
        super().__init__(source, id_size, class_of_classes=class_of_classes, no_fields=no_fields)
        self._no_names = no_fields
        self._widths = value_bytes(id_size)
        self.piece_starts, self.piece_lengths = array("Q"), array("Q")
        self.complete = True  # every piece of the heap is remembered
        self._large: dict[int, list[LargeArray]] = {OBJECT_ARRAY: [], PRIMITIVE_ARRAY: []}
        self._class_dumps: dict[bytes, bytes] = {}
        self.first_objects: dict[bytes, bytes] = {}  # class identifier -> its first object's record
        self.locals: dict[bytes, int] = {}  # object that a thread's stack holds -> the thread's serial
        self.threads: dict[bytes, int] = {}  # thread object -> its serial
        self._kept_bytes = 0

    @property
    def large_arrays(self) -> list[LargeArray]:
        """Give the largest arrays of references, the longest first; of many that are equally long only one."""
        return sorted(self._large[OBJECT_ARRAY], reverse=True)

    @property
    def heap_bytes(self) -> int:
        """Give how many bytes of heap records were passed."""
        return sum(self.piece_lengths)

    def static_references(self) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Give class, name and reference of every static field that was remembered."""
        for class_id in self._class_dumps:
            declared = self.declared(class_id)
            for name, reference in declared.statics if declared else ():
                yield class_id, name, reference

    def width(self, kind: int) -> int:
        """Give how many bytes a value of a type takes in the dump."""
        return self._widths[kind]

    def declared(self, class_id: bytes) -> Declared | None:
        """Give what the class declares, if it was remembered."""
        record = self._class_dumps.get(class_id)
        return None if record is None else _declared(record, self.id_size, self._widths, self._no_names)

    def records(self, chunk: bytes) -> Iterator[tuple[int, int, int]]:
        """Give tag, start and end of each record in `chunk`, which begins with one; the last may end behind it."""
        size, at, end = self.id_size, 0, len(chunk)
        try:
            while at < end:
                tag = chunk[at]
                if tag == INSTANCE:
                    following = at + 2 * size + 9 + _U4.unpack_from(chunk, at + 2 * size + 5)[0]
                elif tag == OBJECT_ARRAY:
                    following = at + 2 * size + 9 + size * _U4.unpack_from(chunk, at + size + 5)[0]
                elif tag == PRIMITIVE_ARRAY:
                    width = PRIMITIVES[chunk[at + size + 9]][1]
                    following = at + size + 10 + width * _U4.unpack_from(chunk, at + size + 5)[0]
                elif tag in self._root_bytes:
                    following = at + self._root_bytes[tag]
                else:
                    following = self._read_class(chunk, at)[0]
                yield tag, at, following
                at = following
        except (IndexError, KeyError, struct.error):
            return

    def _pass(self, chunk: bytes) -> int:
        passed = super()._pass(chunk)
        if passed and len(self.piece_starts) < _PIECES_MOST:
            self.piece_starts.append(self.chunk_at)
            self.piece_lengths.append(passed)
        elif passed:
            self.complete = False
        return passed

    def _meet(self, tag: int, chunk: bytes, position: int) -> bool:
        known = super()._meet(tag, chunk, position)
        if known and tag != INSTANCE:
            self._note_large(tag, chunk, position)
        elif known and self._kept_bytes < _CLASS_BYTES_MOST:
            # The first object of a class: often its only one, and then the holder of what is looked for.
            record = chunk[position : position + 2 * self.id_size + 9 + _FIRST_MOST_BYTES]
            self.first_objects.setdefault(record[5 + self.id_size : 5 + 2 * self.id_size], record)
            self._kept_bytes += len(record) + 150
        return known

    def _pass_other(self, tag: int, chunk: bytes, position: int) -> int:
        end = super()._pass_other(tag, chunk, position)
        if tag in FRAME_ROOTS and len(self.locals) < _LOCALS_MOST:
            at = position + 1 + self.id_size
            self.locals.setdefault(chunk[position + 1 : at], int.from_bytes(chunk[at : at + 4], "big"))
        elif tag == ROOT_THREAD and len(self.threads) < _LOCALS_MOST:
            at = position + 1 + self.id_size
            self.threads[chunk[position + 1 : at]] = int.from_bytes(chunk[at : at + 4], "big")
        return end

    def _note_large(self, tag: int, chunk: bytes, position: int) -> None:
        size = self.id_size
        at = position + size + 5
        (elements,) = _U4.unpack_from(chunk, at)
        if tag == PRIMITIVE_ARRAY:
            if elements * PRIMITIVES[chunk[at + 4]][1] < _LARGE_BYTES:
                return
            class_id = b""
        else:
            if elements < _LARGE_ELEMENTS:
                return
            class_id = chunk[at + 4 : at + 4 + size]
        found = LargeArray(
            elements, self.chunk_at + position, chunk[position + 1 : position + 1 + size], class_id
        )
        if len(self._large[tag]) < _LARGE_MOST:
            heapq.heappush(self._large[tag], found)
        else:
            heapq.heappushpop(self._large[tag], found)

    def _pass_class(self, chunk: bytes, position: int) -> int:
        end = super()._pass_class(chunk, position)
        if self._kept_bytes < _CLASS_BYTES_MOST:
            self._class_dumps[chunk[position + 1 : position + 1 + self.id_size]] = chunk[position:end]
            self._kept_bytes += end - position + 150
        return end


def _declared(record: bytes, size: int, widths: dict[int, int], no_names: set[bytes]) -> Declared:
    """Read a CLASS DUMP that the scan has passed."""
    parent, loader = record[5 + size : 5 + 2 * size], record[5 + 2 * size : 5 + 3 * size]
    data_bytes: int = _U4.unpack_from(record, 5 + 7 * size)[0]
    at = 9 + 7 * size
    constants: int = _U2.unpack_from(record, at)[0]
    at += 2
    for _ in range(constants):
        at += 3 + widths[record[at + 2]]
    count: int = _U2.unpack_from(record, at)[0]
    at += 2
    statics = []
    for _ in range(count):
        name, kind = record[at : at + size], record[at + size]
        at += size + 1
        if kind == OBJECT_TYPE and name not in no_names:
            statics.append((name, record[at : at + size]))
        at += widths[kind]
    (count,) = _U2.unpack_from(record, at)
    at += 2
    fields, value_at = [], 0
    for each in range(at, at + count * (size + 1), size + 1):
        kind = record[each + size]
        if kind not in widths:
            break  # damaged: where the fields behind it stand is not known
        fields.append((record[each : each + size], kind, value_at))
        value_at += widths[kind]
    return Declared(parent, loader, tuple(fields), tuple(statics), data_bytes)
