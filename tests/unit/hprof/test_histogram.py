"""The histogram: every object is counted once, in little memory, and damage ends the count instead of bending it."""

from __future__ import annotations

import random
import struct

import pytest

from dumpagent.hprof import heap_scan
from dumpagent.hprof.facts import java_name
from dumpagent.hprof.histogram import ClassCount, Histogram, count_objects
from dumpagent.hprof.records import PRIMITIVES
from dumpagent.hprof.source import InMemory
from dumpagent.hprof.walk import Walk
from tests.harness.hprof import END, SEGMENT, Maker, record

LAYOUTS = [
    # header, array header, reference, and what it is called
    (12, 16, 4, "compressed references"),
    (16, 24, 8, "full references"),
    (8, 12, 4, "compact headers, compressed references"),
]


class Heap:
    """A heap dumped object by object, at the addresses that a JVM with this layout would give them."""

    def __init__(self, make: Maker, header: int, array_header: int, reference: int) -> None:
        self.make, self.header, self.array_header, self.reference = make, header, array_header, reference
        self.address, self.records = 0x10000, [b""]

    def _place(self, size_bytes: int) -> bytes:
        at, self.address = self.address, self.address + (size_bytes + 7) // 8 * 8
        return self.make.id(at)

    def declare(self, class_id: int, *, parent: int = 0, kinds: bytes = b"", statics: bytes = b"") -> None:
        ids = [parent, 0, 0, 0, 0, 0]
        widths = {2: self.make.id_size, 4: 1, 5: 2, 10: 4, 11: 8}
        self.records.append(
            b"\x20" + self.make.id(class_id) + bytes(4) + b"".join(map(self.make.id, ids)) + struct.pack(">I", 96)
            + struct.pack(">HHBI", 1, 7, 10, 99)
            + struct.pack(">H", len(statics))
            + b"".join(self.make.id(1) + bytes([kind]) + bytes(widths[kind]) for kind in statics)
            + struct.pack(">H", len(kinds))
            + b"".join(self.make.id(1) + bytes([kind]) for kind in kinds)
        )  # fmt: skip

    def instance(self, class_id: int, *, references: int, others: int) -> None:
        place = self._place(self.header + references * self.reference + others)
        data = bytes(references * self.make.id_size + others)
        self.records.append(
            b"\x21" + place + bytes(4) + self.make.id(class_id) + struct.pack(">I", len(data)) + data
        )

    def objects(self, class_id: int, elements: int) -> None:
        place = self._place(self.array_header + elements * self.reference)
        self.records.append(
            b"\x22" + place + bytes(4) + struct.pack(">I", elements) + self.make.id(class_id)
            + bytes(elements * self.make.id_size)
        )  # fmt: skip

    def primitives(self, kind: int, elements: int) -> None:
        width = PRIMITIVES[kind][1]
        place = self._place(self.array_header + elements * width)
        self.records.append(
            b"\x23" + place + bytes(4) + struct.pack(">IB", elements, kind) + bytes(elements * width)
        )

    def root(self, tag: int, more: int) -> None:
        self.records.append(bytes([tag]) + self.make.id(1) + bytes(more))

    def dump(self, *, segments: int = 1) -> bytes:
        per = -(-len(self.records) // segments)
        bodies = [b"".join(self.records[at : at + per]) for at in range(0, len(self.records), per)]
        return self.make.head() + b"".join(record(SEGMENT, body) for body in bodies if body) + record(END)


def count(content: bytes, most: int | None = None) -> Histogram:
    return count_objects(InMemory(content), Walk(), most=most)


@pytest.mark.parametrize(("header", "array_header", "reference", "called"), LAYOUTS)
@pytest.mark.parametrize("segments", [1, 7])
def test_objects_are_counted_and_measured_as_the_jvm_has_them(
    header: int, array_header: int, reference: int, called: str, segments: int
) -> None:
    heap = Heap(Maker(), header, array_header, reference)
    heap.declare(0x1001, kinds=b"\x02")
    heap.declare(0x1002, parent=0x1001, kinds=b"\x0a\x02\x0b\x05", statics=b"\x02\x0a")
    for number in range(50):
        heap.instance(0x1002, references=2, others=14)
        heap.objects(0x1001, number % 9)
        heap.primitives(8, number)
        heap.root(0x08, 8)
    found = count(heap.dump(segments=segments))
    one = (header + 2 * reference + 14 + 7) // 8 * 8
    assert found.layout == called
    assert found.damage is None
    assert (found.objects, found.arrays, found.roots, found.classes_loaded) == (150, 100, 50, 2)
    assert found.shallow_bytes == heap.address - 0x10000
    assert ClassCount("com.acme.Shop", 50, 50 * one) in found.classes
    assert {each.name for each in found.classes} == {"com.acme.Shop", "java.lang.OutOfMemoryError", "byte[]"}


def test_identifiers_of_four_bytes_are_read_too() -> None:
    heap = Heap(Maker(id_size=4), 8, 12, 4)
    heap.declare(0x1002)
    for number in range(30):
        heap.instance(0x1002, references=1, others=4)
        heap.primitives(11, number)
    found = count(heap.dump())
    assert (found.objects, found.damage) == (60, None)


def test_arrays_larger_than_what_is_read_at_once_are_stepped_over() -> None:
    heap = Heap(Maker(), 12, 16, 4)
    for _ in range(3):
        heap.primitives(8, 3 << 20)
        heap.primitives(11, 5)
    found = count(heap.dump())
    assert (found.objects, found.shallow_bytes, found.damage) == (6, heap.address - 0x10000, None)


def test_a_large_array_whose_end_is_cut_off_is_damage() -> None:
    heap = Heap(Maker(), 12, 16, 4)
    heap.primitives(8, 3 << 20)
    assert count(heap.dump()[: -9 - (1 << 20)]).damage is not None
    assert count(heap.dump()[:-9]).damage is not None


def test_only_the_largest_classes_are_listed_but_all_are_counted() -> None:
    heap = Heap(Maker(), 12, 16, 4)
    for kind in (4, 5, 8, 9, 10, 11):
        heap.primitives(kind, 100)
    found = count(heap.dump(), most=2)
    assert [each.name for each in found.classes] == ["long[]", "int[]"]
    assert (found.class_count, found.objects) == (6, 6)


def test_more_different_lengths_than_are_remembered_are_still_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heap_scan, "_CACHE_MOST", 10)
    heap = Heap(Maker(), 12, 16, 4)
    for number in range(200):
        heap.primitives(8, number)
        heap.instance(0x2000 + number, references=0, others=8)
    found = count(heap.dump())
    assert (found.objects, found.arrays) == (400, 200)
    assert found.shallow_bytes == heap.address - 0x10000


@pytest.mark.parametrize("cut", [1, 3, 17, 100, 1000])
def test_a_cut_dump_is_counted_up_to_the_cut(cut: int) -> None:
    heap = Heap(Maker(), 12, 16, 4)
    for _ in range(100):
        heap.primitives(8, 60)
    found = count(heap.dump()[: -9 - cut])
    assert found.damage is not None
    assert 100 - cut // 50 - 2 <= found.objects <= 100  # of the last one only the end may be missing


@pytest.mark.parametrize(
    "rubbish", [b"\x00", b"\x66" * 50, b"\x21" + bytes(10), b"\x23" + bytes(16) + b"\x63"]
)
def test_rubbish_between_objects_ends_the_count_and_is_told(rubbish: bytes) -> None:
    heap = Heap(Maker(), 12, 16, 4)
    heap.primitives(8, 10)
    heap.records.append(rubbish)
    found = count(heap.dump())
    assert found.damage is not None
    assert found.objects == 1


def test_an_object_that_reaches_out_of_its_segment_is_damage() -> None:
    body = b"\x23" + bytes(12) + struct.pack(">IB", 1 << 31, 8)
    found = count(Maker().head() + record(SEGMENT, body) + record(END))
    assert found.damage is not None


def test_random_bytes_are_neither_counted_for_long_nor_fatal() -> None:
    for seed in range(300):
        noise = random.Random(seed).randbytes(3000)
        count(Maker().head() + record(SEGMENT, bytes([0x20 + seed % 4]) + noise) + record(END))


@pytest.mark.parametrize(
    ("internal", "java"),
    [
        ("java/lang/String", "java.lang.String"),
        ("[Ljava/lang/String;", "java.lang.String[]"),
        ("[[I", "int[][]"),
        ("[J", "long[]"),
        ("a/B$$Lambda+0x0000000100082ee8", "a.B$$Lambda/0x0000000100082ee8"),
        ("a/B$$Lambda.0x0000000100082ee8", "a.B$$Lambda/0x0000000100082ee8"),
        ("", ""),
        ("[", "[]"),
    ],
)
def test_class_names_are_written_as_java_people_write_them(internal: str, java: str) -> None:
    assert java_name(internal) == java
