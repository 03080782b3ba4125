"""Counts the objects of a heap dump by class, and says how much memory those of each class take."""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from dumpagent.hprof.classes import FURTHER, FieldCounts
from dumpagent.hprof.facts import class_ids, class_names
from dumpagent.hprof.heap_scan import UNKNOWN_LENGTH, DamagedHeap, HeapScan
from dumpagent.hprof.layout import PECULIAR, Sizes, guess_layout, java_major
from dumpagent.hprof.records import PRIMITIVES
from dumpagent.hprof.source import ByteSource, ReadAhead
from dumpagent.hprof.walk import Shape, Walk


@dataclass(frozen=True, slots=True)
class ClassCount:
    """How many objects of one class there are, and their shallow size together."""

    name: str
    instances: int
    shallow_bytes: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """The objects of a dump by class, most bytes first. `damage` is a clause where counting had to stop early.

    Sizes are those of the JVM's heap with this `layout`: the one that the dump's addresses give away, or, "probably",
    the usual one. Of several snapshots in one file the last whole one is counted.
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
    segments: int = 0  # heap segments of the snapshot that is counted
    snapshot: int = 1  # its number
    snapshots: int = 1  # how many have begun in the file


@dataclass(frozen=True, slots=True)
class Names:
    """The names of classes, in the records that lie in `ranges`."""

    source: ByteSource
    id_size: int
    ranges: Sequence[tuple[int, int]]

    def of(self, class_ids_: Iterable[bytes]) -> dict[bytes, str]:
        """Give the Java names of these classes. Raises OSError."""
        wanted = set(class_ids_)
        return class_names(self.source, self.id_size, self.ranges, wanted) if wanted else {}

    def ids_of(self, names: Iterable[str]) -> dict[bytes, str]:
        """Give the identifiers of the classes of these names, each with its name. Raises OSError."""
        return class_ids(self.source, self.id_size, self.ranges, set(names))


class _Sizing:
    """Turns what a scan counted into sizes."""

    def __init__(self, scan: HeapScan, names: Names, java: int | None) -> None:
        self._scan, self._names = scan, names
        self.layout, self.certain = guess_layout(scan.samples, scan.id_size)
        scan.settle(self.layout)
        self._sizes = Sizes(self.layout, scan.id_size, java)
        found = names.ids_of(PECULIAR).items()
        self._peculiar = {scan.table.find(int.from_bytes(class_id, "big")): name for class_id, name in found}

    def lineage(self, number: int) -> list[tuple[str | None, FieldCounts]]:
        """Give the class and its superclasses, each with its name if that tells of hidden fields."""
        return [(self._peculiar.get(each), shape) for each, shape in self._scan.table.lineage(number)]

    def rows(self) -> list[tuple[int, int, int]]:
        """Give bytes and objects of each class that has any, and minus its number or a primitive array's type."""
        scan, layout = self._scan, self.layout
        totals = array("Q", scan.array_bytes)
        for number in range(1, len(scan.times)):
            length = scan.lengths[number]
            if scan.times[number] and length != UNKNOWN_LENGTH:
                if scan.table.is_declared(number):
                    each_bytes = self._sizes.instance_bytes(self.lineage(number))
                else:
                    each_bytes = layout.rounded(layout.header + length)
                totals[number] += scan.times[number] * each_bytes
        totals[FURTHER] = scan.further_bytes
        self._count_classes(totals)
        times = scan.times
        return [
            *((totals[number], times[number], -number) for number in range(len(times)) if times[number]),
            *((size_bytes, many, kind) for kind, (many, size_bytes) in scan.primitives.items()),
        ]

    def _count_classes(self, totals: array[int]) -> None:
        """Count the classes as the objects that they are."""
        scan = self._scan
        if not scan.class_of_classes or not scan.class_count:
            return
        number = scan.number(scan.class_of_classes)
        totals.extend([0] * (len(scan.times) - len(totals)))
        class_bytes = self._sizes.class_bytes(self.lineage(number))
        scan.times[number] += scan.class_count
        totals[number] += sum(
            many * self._sizes.mirror_bytes(class_bytes, statics) for statics, many in scan.statics.items()
        )


def histogram_of(scan: HeapScan, names: Names, java: int | None, most: int | None, damage: str) -> Histogram:
    """Give the histogram of what `scan` has counted. Raises OSError."""
    sizing = _Sizing(scan, names, java)
    rows = sizing.rows()
    shown = sorted(rows, reverse=True) if most is None else heapq.nlargest(most, rows)
    ids = {row[2]: scan.table.ids[-row[2]].to_bytes(scan.id_size, "big") for row in shown if row[2] < 0}
    named = names.of(ids.values())

    def name(kind: int) -> str:
        if kind == -FURTHER:
            return "(all further classes)"
        if kind > 0:
            return f"{PRIMITIVES[kind][0]}[]"
        return named.get(ids[kind], f"(unnamed class {ids[kind].hex()})")

    return Histogram(
        classes=tuple(ClassCount(name(kind), many, size_bytes) for size_bytes, many, kind in shown),
        class_count=len(rows),
        objects=sum(row[1] for row in rows),
        arrays=scan.arrays,
        shallow_bytes=sum(row[0] for row in rows),
        classes_loaded=scan.class_count,
        roots=scan.roots,
        layout=sizing.layout.name if sizing.certain else f"probably {sizing.layout.name}",
        damage=damage or None,
        segments=scan.segments,
    )


def count_objects(
    source: ByteSource,
    walk: Walk,
    *,
    start: int = 0,
    most: int | None = None,
    size_bytes: int | None = None,
    progress: Callable[[int], None] = lambda _bytes: None,
) -> Histogram:
    """Give the histogram of the dump, reading all of it. `walk` is a new one, and has passed the dump afterwards.

    Of several snapshots the last whole one is counted; heap records before `start` are left out. `size_bytes`
    is the file's size where it is not packed. `progress` is told how
    many bytes of heap were read. What is damaged or cut is counted up to there. Raises OSError, and ValueError where no
    heap begins.
    """
    source, damage = ReadAhead(source), ""
    scan: HeapScan | None = None
    whole: tuple[HeapScan, int] | None = None
    number = 0
    while True:
        walked = walk.advance(source, size_bytes=size_bytes, budget_bytes=1 << 62, each_heap_record=True)
        record = walk.heap_record
        if walked.shape is not Shape.UNFINISHED or record is None:
            damage = "" if walked.shape is Shape.COMPLETE else walked.reason
            break
        if record.offset < start:
            continue
        if scan is None or record.snapshot != number:
            whole, number = (scan, number) if scan else None, record.snapshot
            scan = _new_scan(source, walk)
        try:
            scan.count(record.offset, record.length, progress=progress)
        except DamagedHeap as error:
            damage = str(error)
            break
    if scan is None or walk.header is None or walk.gathered is None:
        raise ValueError("the dump has no heap")
    if damage and whole:
        scan, number = whole
    names = Names(source, walk.header.id_size, walk.ranges)
    found = histogram_of(scan, names, java_major(walk.gathered.jvm), most, damage)
    return replace(found, snapshot=number, snapshots=walk.snapshots)


def _new_scan(source: ByteSource, walk: Walk) -> HeapScan:
    assert walk.header is not None and walk.gathered is not None  # noqa: S101, PT018 - heap records come later
    return HeapScan(
        source,
        walk.header.id_size,
        class_of_classes=walk.gathered.class_of_classes,
        no_fields=walk.gathered.no_fields,
    )
