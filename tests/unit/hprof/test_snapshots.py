"""Several snapshots in one file, as the agent of JDK 5 to 8 writes them: one is chosen and said, none are added up."""

from __future__ import annotations

import struct

import pytest

from dumpagent.cli.commands.inspect import as_dict, describe, inspect
from dumpagent.dumps.model import Cause, State
from dumpagent.hprof.histogram import Histogram, count_objects
from dumpagent.hprof.source import InMemory
from dumpagent.hprof.walk import Shape, Walk
from tests.harness.hprof import END, HEAP_DUMP, SEGMENT, Maker, members, record

START_THREAD, ALLOC_SITES = 0x0A, 0x06


def objects(make: Maker, many: int) -> bytes:
    """Give a heap of a class and `many` of its objects."""
    shown = b"\x20" + make.id(0x1000) + bytes(4) + make.id(0) * 6 + struct.pack(">IHHH", 0, 0, 0, 0)
    return shown + b"".join(
        b"\x21" + make.id(0x2000 + 16 * number) + bytes(4) + make.id(0x1000) + bytes(4)
        for number in range(many)
    )


def head(make: Maker) -> bytes:
    return (
        make.header()
        + make.string(7, "java.lang.Object")
        + make.load_class(1, 7, class_id=0x1000)
        + make.trace(1, 0)
    )


def snapshots(make: Maker, *many: int) -> bytes:
    """Give a file with a snapshot of so many objects each; the name of a thread stands between them."""
    between = make.string(8, "later")
    if make.version == "1.0.1":
        return head(make) + between.join(record(HEAP_DUMP, objects(make, each)) for each in many)
    return head(make) + between.join(record(SEGMENT, objects(make, each)) + record(END) for each in many)


def counted(content: bytes) -> Histogram:
    return count_objects(InMemory(content), Walk())


@pytest.mark.parametrize("id_size", [4, 8])
@pytest.mark.parametrize("version", ["1.0.1", "1.0.2"])
@pytest.mark.parametrize("many", [(10, 10), (10, 3), (1, 2, 30)])
def test_a_file_of_several_snapshots_was_called_truncated_or_was_added_up(
    id_size: int, version: str, many: tuple[int, ...]
) -> None:
    content = snapshots(Maker(id_size=id_size, version=version), *many)
    walk = Walk()
    walked = walk.advance(InMemory(content), size_bytes=len(content))
    assert walked.shape is Shape.COMPLETE
    assert walked.reason.startswith(f"{len(many)} snapshots in one file, the last one counts")
    assert (walk.snapshots, walk.segments) == (len(many), 1)
    found = counted(content)
    assert (found.objects, found.damage) == (many[-1], None)
    assert (found.snapshot, found.snapshots, found.segments) == (len(many), len(many), 1)
    assert found.classes[0].name == "java.lang.Object"


def test_the_last_whole_snapshot_counts_where_the_last_one_is_cut() -> None:
    content = snapshots(Maker(), 10, 20)[:-30]
    walked = Walk().advance(InMemory(content), size_bytes=len(content))
    assert walked.shape is Shape.CUT
    assert "all but the last are whole" in walked.reason
    found = counted(content)
    assert (found.objects, found.snapshot, found.snapshots) == (10, 1, 2)


def test_records_of_the_agent_behind_the_last_snapshot_do_not_make_it_incomplete() -> None:
    sites = record(ALLOC_SITES, bytes(34))
    for version in ("1.0.1", "1.0.2"):
        content = snapshots(Maker(version=version), 10) + sites
        assert Walk().advance(InMemory(content), size_bytes=len(content)).shape is Shape.COMPLETE
        assert Walk().advance(InMemory(content[:-1]), size_bytes=len(content)).shape is Shape.CUT


@pytest.mark.parametrize("packed", [False, True])
def test_inspect_says_how_many_snapshots_there_are_and_which_one_is_counted(
    packed: bool, tmp_path: object
) -> None:
    path = f"{tmp_path}/two.hprof"
    content = snapshots(Maker(), 10, 3)
    with open(path, "wb") as file:
        file.write(members(content, 200) if packed else content)
    found = inspect(path, classes=5, quick=False)
    assert found.state is State.COMPLETE
    assert "2 in this file; number 2 is counted here" in describe(found)
    said = as_dict(found)
    assert (said["snapshots"], said["heap"]["snapshot"], said["heap"]["objects"], said["segments"]) == (
        2,
        2,
        3,
        1,
    )


def test_the_dotted_names_of_the_agent_are_known() -> None:
    """signature_to_name gives java.lang.Class where HotSpot gives java/lang/Class; and int[] where it gives [I."""
    make = Maker()
    content = (
        make.header()
        + make.string(7, "java.lang.Class")
        + make.string(8, "int[]")
        + make.load_class(1, 7, class_id=0x1000)
        + make.load_class(2, 8, class_id=0x1008)
        + record(SEGMENT, objects(make, 1) + b"\x22" + make.id(0x9000) + bytes(8) + make.id(0x1008))
        + record(END)
    )
    names = {each.name: each.instances for each in counted(content).classes}
    assert names == {"java.lang.Class": 2, "int[]": 1}


def test_a_dump_of_the_agent_does_not_tell_its_cause() -> None:
    """It marks no thread that ran out of memory, so nothing can be concluded from that no thread is marked."""
    make = Maker()
    thread = record(START_THREAD, struct.pack(">I", 1) + make.id(5) + struct.pack(">I", 2) + make.id(6) * 3)
    content = make.head(oom=False) + thread + make.segment() + record(END)
    walk = Walk()
    walk.advance(InMemory(content))
    assert walk.gathered is not None
    assert walk.gathered.cause(all_seen=True) is Cause.UNKNOWN


@pytest.mark.parametrize("places", [(0,), (1,), (0, 0, 1, 1), (0, 1, 1, 2)])
def test_a_segment_without_records_does_not_cut_the_dump(places: tuple[int, ...]) -> None:
    """Before, a dump of another writer than HotSpot was called truncated at its first empty segment."""
    make = Maker()
    heap = objects(make, 10)
    middle = len(heap) - 10 * (2 * make.id_size + 9)
    parts = [record(SEGMENT, heap[:middle]), record(SEGMENT, heap[middle:])]
    for place in sorted(places, reverse=True):
        parts.insert(place, record(SEGMENT))
    content = head(make) + b"".join(parts) + record(END)
    walk = Walk()
    assert (
        walk.advance(InMemory(content), size_bytes=len(content), budget_bytes=1 << 40).shape is Shape.COMPLETE
    )
    histogram = count_objects(InMemory(content), Walk(), most=None)
    assert (histogram.objects, histogram.damage) == (10, None)


def test_a_segment_whose_length_was_never_filled_in_cuts_the_dump_all_the_same() -> None:
    make = Maker()
    heap = objects(make, 10)
    for content in (head(make) + record(SEGMENT), head(make) + record(SEGMENT, heap, length=0)):
        assert Walk().advance(InMemory(content), size_bytes=len(content)).shape is Shape.CUT


class Hole:
    """A ByteSource with a long hole of zeros between two pieces."""

    def __init__(self, start: bytes, hole_bytes: int, end: bytes) -> None:
        self._start, self._end, self._end_at = start, end, len(start) + hole_bytes
        self.size_bytes = self._end_at + len(end)

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        size_bytes = max(0, min(size_bytes, self.size_bytes - offset))
        if offset >= self._end_at:
            return self._end[offset - self._end_at :][:size_bytes]
        start = self._start[offset : offset + size_bytes]
        zeros = max(0, min(size_bytes - len(start), self._end_at - offset - len(start)))
        return start + bytes(zeros) + self._end[: size_bytes - len(start) - zeros]


@pytest.mark.parametrize("beyond", [0, 1234])
def test_the_heap_of_an_old_dump_of_more_than_4_gib_is_found(beyond: int) -> None:
    """Its one length has 32 bits: the walk knew better, and the readers of the heap began 4 GiB too late."""
    make = Maker(version="1.0.1")
    first = objects(make, 10) + b"\x23" + make.id(0x9000) + bytes(4) + struct.pack(">I", 1 << 29) + b"\x0b"
    last = b"\x23" + make.id(0x8000) + bytes(4) + struct.pack(">I", beyond) + b"\x08" + bytes(beyond)
    start = head(make) + record(HEAP_DUMP, length=(len(first) + len(last)) & 0xFFFFFFFF) + first
    source = Hole(start, 1 << 32, last)
    walk = Walk()
    walk.advance(source, size_bytes=source.size_bytes, budget_bytes=1 << 40, each_heap_record=True)
    assert walk.heap_record is not None
    assert walk.heap_record.offset == len(start) - len(first)
    assert walk.heap_record.length == len(first) + (1 << 32) + len(last)
    assert walk.advance(source, size_bytes=source.size_bytes).shape is Shape.COMPLETE
