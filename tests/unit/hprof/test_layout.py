"""Sizes as the JVM has them: for every alignment, collector and word size, and for classes with fields no dump shows.

The figures of real JVMs stand in tests/integration/test_histogram_of_jvms.py.
"""

from __future__ import annotations

import random
import struct
import time

import pytest

from dumpagent.hprof.classes import FURTHER, ClassTable, FieldCounts
from dumpagent.hprof.histogram import Histogram, count_objects
from dumpagent.hprof.layout import Layout, Sizes, java_major
from dumpagent.hprof.source import InMemory
from dumpagent.hprof.walk import Walk
from tests.harness.hprof import END, SEGMENT, Maker, record

COMPRESSED = Layout(12, 16, 4, "compressed references")
FULL = Layout(16, 24, 8, "full references")


def counted(content: bytes) -> Histogram:
    return count_objects(InMemory(content), Walk())


def arrays(
    make: Maker, header: int, reference: int, alignment: int, *, shuffled: bool = False
) -> tuple[bytes, int]:
    """Give a dump of arrays one close behind the other, and how many bytes they take up."""
    chance, address, taken, body = random.Random(7), 0x100000, 0, []
    for number in range(400):
        elements = chance.randrange(40)
        references = number % 2 == 0
        size = -(-(header + elements * (reference if references else 1)) // alignment) * alignment
        if references:
            body.append(
                b"\x22" + make.id(address) + bytes(4) + struct.pack(">I", elements) + make.id(0x1001) + bytes(elements * make.id_size)
            )  # fmt: skip
        else:
            body.append(
                b"\x23" + make.id(address) + bytes(4) + struct.pack(">IB", elements, 8) + bytes(elements)
            )
        taken += size
        address += -(-size // alignment) * alignment
    if shuffled:
        chance.shuffle(body)
    return make.head() + record(SEGMENT, b"".join(body)) + record(END), taken


@pytest.mark.parametrize("alignment", [8, 16, 32, 64])
@pytest.mark.parametrize(("header", "reference"), [(16, 4), (24, 8), (16, 8), (20, 8), (12, 4)])
def test_sizes_with_object_alignment_were_those_of_alignment_8(
    alignment: int, header: int, reference: int
) -> None:
    content, taken = arrays(Maker(), header, reference, alignment)
    found = counted(content)
    assert found.shallow_bytes == taken
    assert (f"aligned to {alignment} bytes" in found.layout) == (alignment > 8)


@pytest.mark.parametrize(("header", "reference"), [(16, 4), (24, 8), (16, 8)])
def test_a_heap_that_is_dumped_in_no_order_of_addresses_gives_its_layout_away_too(
    header: int, reference: int
) -> None:
    """ZGC and Shenandoah dump by following references; sizes were 11 to 14 % too large."""
    content, taken = arrays(Maker(), header, reference, 8, shuffled=True)
    found = counted(content)
    assert (found.shallow_bytes, "probably" in found.layout) == (taken, False)


def test_a_32_bit_jvm_was_called_compact() -> None:
    content, taken = arrays(Maker(id_size=4), 12, 4, 8)
    found = counted(content)
    assert (found.shallow_bytes, found.layout) == (taken, "32-bit JVM")


def test_a_jvm_that_makes_a_segment_of_each_object_gives_its_layout_away_too() -> None:
    """`jhsdb jmap --binaryheap --gz` does."""
    content, taken = arrays(Maker(), 16, 4, 8)
    body = content[len(Maker().head()) + 9 : -9]
    pieces, at = [], 0
    while at < len(body):
        if body[at] == 0x22:
            end = at + 25 + 8 * int.from_bytes(body[at + 13 : at + 17], "big")
        else:
            end = at + 18 + int.from_bytes(body[at + 13 : at + 17], "big")
        pieces.append(record(SEGMENT, body[at:end]))
        at = end
    found = counted(Maker().head() + b"".join(pieces) + record(END))
    assert (found.shallow_bytes, found.layout, found.segments) == (taken, "compressed references", 400)


@pytest.mark.parametrize(
    ("java", "lineage", "layout", "size_bytes"),
    [
        # class A { byte b; } class B extends A { long l; } class C extends B { int i; } class D extends C { byte c; }
        (11, [FieldCounts(ones=1)], COMPRESSED, 16),
        (11, [FieldCounts(eights=1), FieldCounts(ones=1)], COMPRESSED, 24),
        (
            11,
            [FieldCounts(ones=1), FieldCounts(fours=1), FieldCounts(eights=1), FieldCounts(ones=1)],
            COMPRESSED,
            32,
        ),
        # Four levels of one boolean: before 15 each begins at a word of its own.
        (11, [FieldCounts(ones=1)] * 4, COMPRESSED, 32),
        (17, [FieldCounts(ones=1)] * 4, COMPRESSED, 16),
        (11, [FieldCounts(ones=1)] * 4, FULL, 48),
        (17, [FieldCounts(ones=1)] * 4, FULL, 24),
        (None, [FieldCounts(ones=1)] * 4, COMPRESSED, 16),
        # A long leaves a gap behind 12 bytes of header that an int fills, or a reference.
        (11, [FieldCounts(eights=1, fours=1)], COMPRESSED, 24),
        (11, [FieldCounts(eights=1, references=1)], COMPRESSED, 24),
    ],
)
def test_fields_of_java_14_and_older_have_gaps(
    java: int | None, lineage: list[FieldCounts], layout: Layout, size_bytes: int
) -> None:
    assert Sizes(layout, 8, java).instance_bytes([(None, shape) for shape in lineage]) == size_bytes


def test_a_class_takes_what_its_static_fields_take_not_what_its_objects_take() -> None:
    sizes = Sizes(COMPRESSED, 8, 21)
    assert sizes.mirror_bytes(112, FieldCounts()) == 112
    assert sizes.mirror_bytes(112, FieldCounts(references=3, ones=1)) == 128
    assert sizes.mirror_bytes(111, FieldCounts(eights=2)) == 128
    assert sizes.mirror_bytes(112, FieldCounts(references=1, eights=1, ones=1)) == 136  # its long is aligned


@pytest.mark.parametrize(
    ("jvm", "major"),
    [
        ('openjdk version "17.0.9" 2023-10-17', 17),
        ('java version "1.8.0_292"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        (None, None),
        ("?", None),
    ],
)
def test_the_java_version_is_read_in_old_and_new_writing(jvm: str | None, major: int | None) -> None:
    assert java_major(jvm) == major


def test_more_than_60_000_classes_were_counted_together() -> None:
    make, many = Maker(), 70_000
    body = [b"\x20" + make.id(0x10) + bytes(4) + make.id(0) * 6 + struct.pack(">IHHH", 0, 0, 0, 0)]
    for number in range(many):
        own = make.id(0x100000 + 8 * number)
        fields = make.id(1) + b"\x02" + make.id(1) + b"\x0a"
        body.append(
            b"\x20"
            + own
            + bytes(4)
            + make.id(0x10)
            + make.id(0) * 5
            + struct.pack(">IHHH", 0, 0, 0, 2)
            + fields
        )
        body.append(
            b"\x21" + make.id(0x9000000 + 24 * number) + bytes(4) + own + struct.pack(">I", 12) + bytes(12)
        )
    found = count_objects(
        InMemory(make.head() + record(SEGMENT, b"".join(body)) + record(END)), Walk(), most=3
    )
    assert (found.class_count, found.objects, found.classes_loaded) == (many, many, many + 1)
    assert found.shallow_bytes == many * 24
    assert "further" not in found.classes[0].name


def test_a_table_of_classes_holds_what_it_is_given_and_counts_the_rest_together() -> None:
    table, chance = ClassTable(most=5000), random.Random(3)
    ids = [chance.getrandbits(64) for _ in range(6000)]
    began = time.process_time()
    numbers = [table.number(each) for each in ids]
    assert numbers[:5000] == list(range(1, 5001))
    assert set(numbers[5000:]) == {FURTHER}
    assert [table.find(each) for each in ids[:5000]] == numbers[:5000]
    assert table.find(ids[5500]) is None
    assert time.process_time() - began < 2
    table.declare(ids[0], ids[1], FieldCounts(ones=1))
    table.declare(ids[1], ids[0], FieldCounts(twos=1))  # a ring, which no JVM writes
    assert len(list(table.lineage(1))) == 1000
