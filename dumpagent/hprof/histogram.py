"""Counts the objects of a heap dump by class in one pass, in a few megabytes of memory however large the dump is."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dumpagent.hprof import records
from dumpagent.hprof.facts import each_record, java_name, text_of
from dumpagent.hprof.records import (
    CLASS_DUMP,
    INSTANCE,
    OBJECT_ARRAY,
    OBJECT_TYPE,
    PRIMITIVE_ARRAY,
    PRIMITIVES,
)
from dumpagent.hprof.source import ByteSource
from dumpagent.hprof.walk import Walk

_CHUNK_BYTES = 1 << 20
_LARGEST_CLASS_BYTES = 8 << 20
# No record's fixed part is longer; where less is left of a chunk that is not the segment's last, more is read first.
_FIXED_MOST_BYTES = 128
# Bounds on what a hostile dump can make us remember; no application comes near the second one.
_CACHE_MOST = 32_768
_CLASSES_MOST = 60_000
_SAMPLES_MOST = 2000
_DEEPEST_INHERITANCE = 1000
_U2, _U4 = struct.Struct(">H"), struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many objects of one class there are, and their shallow size together."""

    name: str
    instances: int
    shallow_bytes: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """The objects of a dump by class, most bytes first. `damage` is a clause where counting had to stop early.

    Sizes are those of the JVM's heap where the dump's addresses give its layout away (`layout`), else those of the
    dump, whose references are always as wide as its identifiers.
    """

    classes: tuple[ClassCount, ...]
    class_count: int  # classes that have objects; `classes` may be the largest of them only
    objects: int
    arrays: int
    shallow_bytes: int
    classes_loaded: int
    roots: int
    layout: str
    damage: str | None = None


@dataclass(frozen=True, slots=True)
class _Layout:
    """Bytes that the JVM spends on an object's header, an array's header, and a reference."""

    header: int
    array_header: int
    reference: int
    name: str


# Source: JDK oopDesc and arrayOopDesc: mark word 8, class pointer 4 or 8, array length 4; JDK 25 can do with 8 in all.
_LAYOUTS = (
    _Layout(12, 16, 4, "compressed references"),
    _Layout(16, 24, 8, "full references"),
    _Layout(12, 16, 8, "full references, compressed class pointers"),
    _Layout(16, 20, 8, "full references and class pointers"),
    _Layout(16, 24, 4, "compressed references, full class pointers"),
    _Layout(8, 12, 4, "compact headers, compressed references"),
    _Layout(8, 12, 8, "compact headers, full references"),
)


class _Seen:
    """Records that are all `step` bytes long, and how many there were."""

    __slots__ = ("step", "times")  # a third faster than a list of two in the loop that counts

    def __init__(self, step: int) -> None:
        self.step = step
        self.times = 0


@dataclass(slots=True)
class _Class:
    parent: bytes
    references: int  # own fields that are references


class Damaged(ValueError):
    """The heap records make no sense from some byte on; `str()` is a clause for a person."""


class HeapScan:
    """Counts objects segment by segment.

    A class is itself an object, of `class_of_classes`: HotSpot dumps those of int, long... as instances, and all
    others as CLASS DUMP records alone.
    """

    def __init__(
        self, source: ByteSource, header: records.Header, *, class_of_classes: bytes | None = None
    ) -> None:
        self._source, self._header = source, header
        size = header.id_size
        self._size = size
        self._id_end, self._fixed = 1 + size, size + 5
        # The bytes of a record that settle how long it is -> how often that was seen.
        self._instances: dict[bytes, _Seen] = {}  # class identifier, u4 bytes of data
        self._object_arrays: dict[bytes, _Seen] = {}  # u4 elements, class identifier
        self._primitive_arrays: dict[bytes, _Seen] = {}  # u4 elements, u1 type
        self._totals: dict[
            bytes, list[int]
        ] = {}  # class identifier, or type of a primitive array -> times, bytes
        self._classes: dict[bytes, _Class] = {}
        self._all_references: dict[bytes, int] = {}
        self._class_count = self._class_bytes = self._arrays = 0
        self.roots = 0
        self._class_of_classes = class_of_classes
        self._samples: list[tuple[int, int, int]] = []  # gap, elements, element size (0: a reference)
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
        while offset < end:
            chunk = self._source.read_at(offset, min(want, end - offset))
            if not chunk:
                raise Damaged(f"the dump ends at byte {offset}, inside a segment")
            last = offset + len(chunk) >= end
            if len(self._samples) < _SAMPLES_MOST:
                self._sample(chunk)
            passed = self._pass(chunk)
            if passed == 0:
                if not last and len(chunk) < want:
                    raise Damaged(f"the dump ends at byte {offset + len(chunk)}, inside a segment")
                if last or want > _LARGEST_CLASS_BYTES:
                    raise Damaged(f"at byte {offset} stands something that no heap has there")
                want *= 4
                continue
            want = _CHUNK_BYTES
            progress(min(passed, end - offset))
            offset += passed
        if offset != end:
            raise Damaged(f"an object reaches over the end of its segment at byte {end}")

    def _pass(self, chunk: bytes) -> int:
        """Count the records in `chunk`; give where the first one begins that is not all there, or is none.

        What is cut off at the end of the chunk has a key that is too short to be known, so nothing is compared for it.
        """
        size, position = self._size, 0
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
        size = self._size
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
            self._settle()
        cache[key] = _Seen(step)
        return True

    def _pass_other(self, tag: int, chunk: bytes, position: int) -> int:
        """Pass a root or a class; give where the next record begins. Raises Damaged, IndexError, struct.error."""
        if tag == CLASS_DUMP:
            return self._pass_class(chunk, position)
        length = self._root_bytes.get(tag)
        if length is None:
            raise Damaged(f"a heap record of the unknown kind {tag:#04x} stands in a segment")
        if position + length > len(chunk):
            raise IndexError(position)
        if tag not in (0xFE, 0xC3):
            self.roots += 1
        return position + length

    def _pass_class(self, chunk: bytes, position: int) -> int:
        """Count a class; give where the next record begins. Raises IndexError, KeyError, struct.error."""
        size = self._size
        end, references = self._read_class(chunk, position)
        (object_bytes,) = _U4.unpack_from(chunk, position + 5 + 7 * size)
        self._class_count += 1
        self._class_bytes += object_bytes
        if len(self._classes) < _CLASSES_MOST:
            parent = chunk[position + 5 + size : position + 5 + 2 * size]
            self._classes[chunk[position + 1 : position + 1 + size]] = _Class(parent, references)
        return end

    def _read_class(self, chunk: bytes, position: int) -> tuple[int, int]:
        """Give the end of a CLASS DUMP and how many references an object of it holds, its superclasses' not counted.

        It is: id, u4, 6 ids, u4, then constants, statics and fields, each with a u2 count before them.
        """
        size, value_bytes = self._size, self._value_bytes
        at = position + 9 + 7 * size
        constants: int = _U2.unpack_from(chunk, at)[0]
        at += 2
        for _ in range(constants):
            at += 3 + value_bytes[chunk[at + 2]]
        statics: int = _U2.unpack_from(chunk, at)[0]
        at += 2
        for _ in range(statics):
            at += size + 1 + value_bytes[chunk[at + size]]
        fields: int = _U2.unpack_from(chunk, at)[0]
        at += 2
        kinds = chunk[at + size : at + fields * (size + 1) : size + 1]
        at += fields * (size + 1)
        if at > len(chunk):
            raise IndexError(position)
        return at, kinds.count(OBJECT_TYPE)

    # -- sizes --------------------------------------------------------------------------------------------------

    def _sample(self, chunk: bytes) -> None:
        """Note the distance in memory from arrays to what was dumped after them: it gives the layout away."""
        size, position, end = self._size, 0, len(chunk) - _FIXED_MOST_BYTES
        before: tuple[int, int, int] | None = None
        while position < end and len(self._samples) < _SAMPLES_MOST:
            tag = chunk[position]
            if tag not in (INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY):
                before = None
                try:
                    class_end = self._read_class(chunk, position)[0] if tag == CLASS_DUMP else 0
                    position = class_end or position + self._root_bytes[tag]
                except (IndexError, KeyError, struct.error):
                    return
                continue
            address = int.from_bytes(chunk[position + 1 : position + 1 + size], "big")
            if before and 0 < address - before[0] < 1 << 20:
                self._samples.append((address - before[0], before[1], before[2]))
            at = position + size + 5
            if tag == INSTANCE:
                position = at + size + 4 + _U4.unpack_from(chunk, at + size)[0]
                before = None
                continue
            (elements,) = _U4.unpack_from(chunk, at)
            if tag == OBJECT_ARRAY:
                before = address, elements, 0
                position = at + size + 4 + elements * size
            else:
                width = PRIMITIVES.get(chunk[at + 4], ("", 0))[1]
                if not width:
                    return
                before = address, elements, width
                position = at + 5 + elements * width

    def layout(self) -> _Layout | None:
        """Give the layout that explains nearly all the distances between arrays; None if none does."""
        if not self._samples:
            return None
        votes = {
            layout: sum(
                _aligned(layout.array_header + elements * (width or layout.reference)) == gap
                for gap, elements, width in self._samples
            )
            for layout in _LAYOUTS
        }
        best = max(_LAYOUTS, key=lambda layout: votes[layout])
        return best if votes[best] * 2 > len(self._samples) else None

    def _settle(self) -> None:
        """Move what the caches counted into the totals, and begin them anew."""
        layout = self.layout() or _Layout(2 * self._size, 2 * self._size, self._size, "")
        for kind, cache in (
            (INSTANCE, self._instances),
            (OBJECT_ARRAY, self._object_arrays),
            (PRIMITIVE_ARRAY, self._primitive_arrays),
        ):
            for key, seen in cache.items():
                if seen.times:
                    self._add(kind, key, seen.times, layout)
            cache.clear()

    def _add(self, kind: int, key: bytes, times: int, layout: _Layout) -> None:
        if kind == INSTANCE:
            class_id = key[: self._size]
            narrower = self._references(class_id) * (self._size - layout.reference)
            each_bytes = layout.header + int.from_bytes(key[self._size :], "big") - narrower
        else:
            class_id = key[4:]  # of a primitive array: its type
            width = PRIMITIVES[class_id[0]][1] if kind == PRIMITIVE_ARRAY else layout.reference
            each_bytes = layout.array_header + int.from_bytes(key[:4], "big") * width
            self._arrays += times
        self._add_to(class_id, times, _aligned(each_bytes) * times)

    def _add_to(self, class_id: bytes, times: int, shallow_bytes: int) -> None:
        if class_id not in self._totals and len(self._totals) >= _CLASSES_MOST:
            class_id = b""  # nobody has that many: they are counted together
        total = self._totals.setdefault(class_id, [0, 0])
        total[0] += times
        total[1] += shallow_bytes

    def _references(self, class_id: bytes) -> int:
        """Give how many references an object of the class holds, its superclasses' among them."""
        known = self._all_references.get(class_id)
        if known is not None:
            return known
        references, each = 0, class_id
        for _ in range(_DEEPEST_INHERITANCE):
            found = self._classes.get(each)
            if found is None:
                break
            references, each = references + found.references, found.parent
        self._all_references[class_id] = references
        return references

    def result(
        self,
        *,
        names: Callable[[Iterable[bytes]], dict[bytes, str]],
        most: int | None = None,
        damage: str = "",
    ) -> Histogram:
        """Give the histogram of what has been counted, with the `most` largest classes (None: all).

        `names` gives names by class identifier. Raises what `names` raises.
        """
        self._settle()
        layout = self.layout()
        if self._class_of_classes and self._class_count:
            self._add_to(self._class_of_classes, self._class_count, self._class_bytes)
        by_size = sorted(self._totals.items(), key=lambda item: (-item[1][1], -item[1][0], item[0]))
        objects, shallow_bytes = (sum(total[place] for total in self._totals.values()) for place in (0, 1))
        shown = by_size[:most]
        named = names(class_id for class_id, _ in shown if len(class_id) == self._size)
        return Histogram(
            classes=tuple(
                ClassCount(self._name(class_id, named), instances, size)
                for class_id, (instances, size) in shown
            ),
            class_count=len(by_size),
            objects=objects,
            arrays=self._arrays,
            shallow_bytes=shallow_bytes,
            classes_loaded=self._class_count,
            roots=self.roots,
            layout=layout.name if layout else "as in the dump",
            damage=damage or None,
        )

    def _name(self, class_id: bytes, named: dict[bytes, str]) -> str:
        if not class_id:
            return "(all further classes)"
        if len(class_id) == 1:
            return f"{PRIMITIVES[class_id[0]][0]}[]"
        return named.get(class_id, f"(unnamed class {class_id.hex()})")


def _aligned(size_bytes: int) -> int:
    return (size_bytes + 7) & ~7


def class_names(
    source: ByteSource, header: records.Header, start: int, stop: int, class_ids: Iterable[bytes]
) -> dict[bytes, str]:
    """Give the Java names of these classes from the records in [start, stop). Raises OSError."""
    size, wanted = header.id_size, set(class_ids)
    name_ids: dict[bytes, bytes] = {}
    for tag, record in each_record(source, start, stop):
        if tag == records.LOAD_CLASS and record[4 : 4 + size] in wanted:
            name_ids[record[4 : 4 + size]] = record[8 + size : 8 + 2 * size]
    needed, texts = set(name_ids.values()), {}
    for tag, record in each_record(source, start, stop):
        if tag == records.STRING and record[:size] in needed:
            texts[record[:size]] = java_name(text_of(record[size:]))
    return {class_id: texts[name_id] for class_id, name_id in name_ids.items() if name_id in texts}


def count_objects(
    source: ByteSource,
    walk: Walk,
    *,
    most: int | None = None,
    progress: Callable[[int], None] = lambda _offset: None,
) -> Histogram:
    """Give the histogram of the dump, reading all of it; `walk` has passed its head, up to the first heap record.

    `progress` is told the offset that has been reached. What is damaged or cut is counted up to there. Raises OSError.
    """
    header, gathered = walk.header, walk.gathered
    if header is None or gathered is None or not gathered.heap_start:
        raise ValueError("the walk has not come to the heap")
    scan = HeapScan(source, header, class_of_classes=gathered.class_of_classes)
    offset, damage, legacy = gathered.heap_start, "", False
    while True:
        # From one byte before, to see whether the record before it is all there.
        chunk = source.read_at(offset - 1, records.RECORD_BYTES + 1)
        if len(chunk) == 1 and legacy:
            break
        if len(chunk) <= records.RECORD_BYTES:
            damage = "the dump ends without END" if len(chunk) == 1 else "the dump ends inside a record"
            break
        tag, length = records.RECORD.unpack_from(chunk, 1)
        body = offset + records.RECORD_BYTES
        if tag == records.HEAP_DUMP_END:
            break
        if tag in (records.HEAP_DUMP_SEGMENT, records.HEAP_DUMP):
            legacy = legacy or tag == records.HEAP_DUMP
            try:
                scan.count(body, length, progress=progress)
            except Damaged as error:
                damage = str(error)
                break
        offset = body + length
    return scan.result(
        names=lambda ids: class_names(source, header, header.size_bytes, gathered.heap_start, ids),
        most=most,
        damage=damage,
    )
