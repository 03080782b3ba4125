"""One pass over the objects of a heap dump, in a few megabytes of memory however large the dump is."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable

from dumpagent.hprof import records
from dumpagent.hprof.classes import FURTHER, ClassTable, FieldCounts
from dumpagent.hprof.layout import Layout, Sample, guess_layout
from dumpagent.hprof.records import (
    CLASS_DUMP,
    INSTANCE,
    OBJECT_ARRAY,
    OBJECT_TYPE,
    PRIMITIVE_ARRAY,
    PRIMITIVES,
)
from dumpagent.hprof.source import ByteSource

_CHUNK_BYTES = 1 << 20
_LARGEST_CLASS_BYTES = 8 << 20
# No record's fixed part is longer; where less is left of a chunk that is not the segment's last, more is read first.
_FIXED_MOST_BYTES = 128
# Bounds on what a hostile dump can make us remember.
_CACHE_MOST = 32_768
_STATICS_MOST = 20_000
# Objects whose addresses are looked at; collectors that dump in no order need that many, see layout.py.
_SAMPLES_MOST = 40_000
UNKNOWN_LENGTH = 0xFFFFFFFF
_U2, _U4 = struct.Struct(">H"), struct.Struct(">I")


class _Step:
    """Records that are all `step` bytes long, and how many there were."""

    __slots__ = ("step", "times")  # a third faster than a list of two in the loop that counts

    def __init__(self, step: int) -> None:
        self.step = step
        self.times = 0


class DamagedHeap(ValueError):
    """The heap records make no sense from some byte on; `str()` is a clause for a person."""


class HeapScan:
    """Counts objects segment by segment.

    A class is itself an object, of `class_of_classes`: HotSpot dumps those of int, long... as instances, and all
    others as CLASS DUMP records alone. `no_fields` are identifiers of names that HotSpot gives to references that it
    shows among the static fields and that are none.
    """

    def __init__(
        self,
        source: ByteSource,
        id_size: int,
        *,
        class_of_classes: bytes | None = None,
        no_fields: set[bytes] | None = None,
    ) -> None:
        self._source = source
        size = id_size
        self.id_size = size
        # The bytes of a record that settle how long it is -> how often that was seen.
        self._instances: dict[bytes, _Step] = {}  # class identifier, u4 bytes of data
        self._object_arrays: dict[bytes, _Step] = {}  # u4 elements, class identifier
        self._primitive_arrays: dict[bytes, _Step] = {}  # u4 elements, u1 type
        self.table = ClassTable()
        # By a class's number: instances, bytes of data of each, bytes of all that are arrays.
        self.times, self.lengths, self.array_bytes = array("Q", [0]), array("I", [0]), array("Q", [0])
        self.further_bytes = 0
        self.primitives: dict[int, list[int]] = {}  # basic type -> arrays, bytes
        self.class_count = self.arrays = 0
        self.statics: dict[FieldCounts, int] = {}  # static fields -> classes that have these
        self.roots = self.segments = 0
        self.chunk_at = 0  # where what is passed just now begins
        self.class_of_classes, self._no_fields = class_of_classes, no_fields or set()
        self.samples: list[Sample] = []
        ids = {
            0xFF: size, 0x01: 2 * size, 0x02: size + 8, 0x03: size + 8, 0x04: size + 4, 0x05: size, 0x06: size + 4,
            0x07: size, 0x08: size + 8,
            # Android's. Source: ART hprof.cc
            0x89: size, 0x8A: size, 0x8B: size, 0x8C: size, 0x8D: size, 0x8E: size + 8, 0x90: size,
            0xC3: size + 9, 0xFE: 4 + size,
        }  # fmt: skip
        self._root_bytes = {tag: 1 + length for tag, length in ids.items()}
        self._value_bytes = records.value_bytes(size)

    def count(
        self, offset: int, length: int, *, progress: Callable[[int], None] = lambda _bytes: None
    ) -> None:
        """Count the objects of the segment whose body is `length` bytes from `offset`. Raises OSError, ValueError."""
        end, want = offset + length, _CHUNK_BYTES
        self.segments += 1
        while offset < end:
            chunk = self._source.read_at(offset, min(want, end - offset))
            if not chunk:
                raise DamagedHeap(f"the dump ends at byte {offset}, inside a segment")
            last = offset + len(chunk) >= end
            if len(self.samples) < _SAMPLES_MOST:
                self._sample(chunk)
            self.chunk_at = offset
            passed = self._pass(chunk)
            if passed == 0:
                if not last and len(chunk) < want:
                    raise DamagedHeap(f"the dump ends at byte {offset + len(chunk)}, inside a segment")
                if last or want > _LARGEST_CLASS_BYTES:
                    raise DamagedHeap(f"at byte {offset} stands something that no heap has there")
                want *= 4
                continue
            want = _CHUNK_BYTES
            progress(min(passed, end - offset))
            offset += passed
        if offset != end:
            raise DamagedHeap(f"an object reaches over the end of its segment at byte {end}")

    def _pass(self, chunk: bytes) -> int:
        """Count the records in `chunk`; give where the first one begins that is not all there, or is none.

        What is cut off at the end of the chunk has a key that is too short to be known, so nothing is compared for it.
        """
        size, position = self.id_size, 0
        instances, object_arrays = self._instances, self._object_arrays
        primitive_arrays = self._primitive_arrays
        from_, to, primitive_to = size + 5, 2 * size + 9, size + 10
        while True:
            try:
                while True:
                    tag = chunk[position]
                    if (
                        tag == 0x23
                    ):  # PRIMITIVE_ARRAY; literals, as this loop runs for each of millions of objects
                        seen = primitive_arrays[chunk[position + from_ : position + primitive_to]]
                        seen.times += 1
                        position += seen.step
                    elif tag == 0x21:  # INSTANCE
                        seen = instances[chunk[position + from_ : position + to]]
                        seen.times += 1
                        position += seen.step
                    elif tag == 0x22:  # OBJECT_ARRAY
                        seen = object_arrays[chunk[position + from_ : position + to]]
                        seen.times += 1
                        position += seen.step
                    else:
                        position = self._pass_other(tag, chunk, position)
            except KeyError:
                if tag not in (INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY) or not self._meet(
                    tag, chunk, position
                ):
                    return position
            except (IndexError, struct.error):
                return position

    def _meet(self, tag: int, chunk: bytes, position: int) -> bool:
        """Learn how long objects with this class and length are; say no if this is not all of one's head."""
        size = self.id_size
        at = position + size + 5
        if tag == PRIMITIVE_ARRAY:
            key, cache = chunk[at : at + 5], self._primitive_arrays
            if len(key) < 5 or key[4] not in PRIMITIVES:
                return False
            step = size + 10 + _U4.unpack_from(key)[0] * PRIMITIVES[key[4]][1]
        else:
            key = chunk[at : at + size + 4]
            if len(key) < size + 4:
                return False
            if tag == INSTANCE:
                step, cache = 2 * size + 9 + _U4.unpack_from(key, size)[0], self._instances
            else:
                step, cache = 2 * size + 9 + _U4.unpack_from(key)[0] * size, self._object_arrays
        if len(cache) >= _CACHE_MOST:
            self.settle(guess_layout(self.samples, self.id_size)[0])
        cache[key] = _Step(step)
        return True

    def _pass_other(self, tag: int, chunk: bytes, position: int) -> int:
        """Pass a root or a class; give where the next record begins. Raises DamagedHeap, IndexError, struct.error."""
        if tag == CLASS_DUMP:
            return self._pass_class(chunk, position)
        length = self._root_bytes.get(tag)
        if length is None:
            raise DamagedHeap(f"a heap record of the unknown kind {tag:#04x} stands in a segment")
        if position + length > len(chunk):
            raise IndexError(position)
        if tag not in (0xFE, 0xC3):
            self.roots += 1
        return position + length

    def _pass_class(self, chunk: bytes, position: int) -> int:
        """Count a class; give where the next record begins. Raises IndexError, KeyError, struct.error."""
        size = self.id_size
        end, fields, statics = self._read_class(chunk, position)
        self.class_count += 1
        if statics in self.statics or len(self.statics) < _STATICS_MOST:
            self.statics[statics] = self.statics.get(statics, 0) + 1
        else:
            self.statics[FieldCounts()] = self.statics.get(FieldCounts(), 0) + 1
        parent = chunk[position + 5 + size : position + 5 + 2 * size]
        own = chunk[position + 1 : position + 1 + size]
        self.table.declare(int.from_bytes(own, "big"), int.from_bytes(parent, "big"), fields)
        return end

    def _read_class(self, chunk: bytes, position: int) -> tuple[int, FieldCounts, FieldCounts]:
        """Give the end of a CLASS DUMP, the fields that the class declares, and its static fields.

        It is: id, u4, 6 ids, u4, then constants, statics and fields, each with a u2 count before them.
        """
        size, value_bytes = self.id_size, self._value_bytes
        at = position + 9 + 7 * size
        constants: int = _U2.unpack_from(chunk, at)[0]
        at += 2
        for _ in range(constants):
            at += 3 + value_bytes[chunk[at + 2]]
        statics: int = _U2.unpack_from(chunk, at)[0]
        at += 2
        static_kinds = bytearray()
        for _ in range(statics):
            kind = chunk[at + size]
            if kind != OBJECT_TYPE or chunk[at : at + size] not in self._no_fields:
                static_kinds.append(kind)
            at += size + 1 + value_bytes[kind]
        fields: int = _U2.unpack_from(chunk, at)[0]
        at += 2
        kinds = chunk[at + size : at + fields * (size + 1) : size + 1]
        at += fields * (size + 1)
        if at > len(chunk):
            raise IndexError(position)
        return at, _shape(kinds), _shape(static_kinds)

    # -- sizes --------------------------------------------------------------------------------------------------

    def _sample(self, chunk: bytes) -> None:
        """Note where objects lie: the distances between them give the layout away."""
        size, position, end = self.id_size, 0, len(chunk) - _FIXED_MOST_BYTES
        if len(chunk) <= 2 * _FIXED_MOST_BYTES:
            end = len(chunk) - size - 9 - size  # a segment of one small object
        samples = self.samples
        while position < end and len(samples) < _SAMPLES_MOST:
            tag = chunk[position]
            if tag not in (INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY):
                try:
                    class_end = self._read_class(chunk, position)[0] if tag == CLASS_DUMP else 0
                    position = class_end or position + self._root_bytes[tag]
                except (IndexError, KeyError, struct.error):
                    return
                continue
            address = int.from_bytes(chunk[position + 1 : position + 1 + size], "big")
            at = position + size + 5
            if tag == INSTANCE:
                samples.append(Sample(address))
                position = at + size + 4 + _U4.unpack_from(chunk, at + size)[0]
                continue
            (elements,) = _U4.unpack_from(chunk, at)
            if tag == OBJECT_ARRAY:
                samples.append(Sample(address, elements))
                position = at + size + 4 + elements * size
            else:
                width = PRIMITIVES.get(chunk[at + 4], ("", 0))[1]
                if not width:
                    return
                samples.append(Sample(address, elements, width))
                position = at + 5 + elements * width

    def settle(self, layout: Layout) -> None:
        """Move what the caches counted into the totals, and begin them anew."""
        for key, seen in self._instances.items():
            if seen.times:
                self._add_instances(key, seen.times, layout)
        for key, seen in self._object_arrays.items():
            if seen.times:
                number = self.number(key[4:])
                self.times[number] += seen.times
                size_bytes = seen.times * layout.array_bytes(int.from_bytes(key[:4], "big"), 0)
                if number == FURTHER:
                    self.further_bytes += size_bytes
                else:
                    self.array_bytes[number] += size_bytes
                self.arrays += seen.times
        for key, seen in self._primitive_arrays.items():
            if seen.times:
                total = self.primitives.setdefault(key[4], [0, 0])
                total[0] += seen.times
                size_bytes = layout.array_bytes(int.from_bytes(key[:4], "big"), PRIMITIVES[key[4]][1])
                total[1] += seen.times * size_bytes
                self.arrays += seen.times
        for cache in (self._instances, self._object_arrays, self._primitive_arrays):
            cache.clear()

    def _add_instances(self, key: bytes, times: int, layout: Layout) -> None:
        number, length = self.number(key[: self.id_size]), _U4.unpack_from(key, self.id_size)[0]
        self.times[number] += times
        if number == FURTHER:
            self.further_bytes += times * layout.rounded(layout.header + length)
        else:
            self.lengths[number] = length

    def number(self, class_id: bytes) -> int:
        number = self.table.number(int.from_bytes(class_id, "big"))
        missing = number + 1 - len(self.times)
        if missing > 0:
            self.times.extend([0] * missing)
            self.lengths.extend([UNKNOWN_LENGTH] * missing)
            self.array_bytes.extend([0] * missing)
        return number


def _shape(kinds: bytes | bytearray) -> FieldCounts:
    count = kinds.count
    return FieldCounts(
        count(OBJECT_TYPE),
        count(7) + count(11),
        count(6) + count(10),
        count(5) + count(9),
        count(4) + count(8),
    )
