"""Measures one heap for a comparison: by class, and by the static or field that holds each object."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np

from dumpagent.analyze.analysis import Steps, Subject, dump_part, heap_part
from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.graph.retained import ObjectSizes
from dumpagent.analyze.growth.model import Side
from dumpagent.analyze.heap.owners import FIRST_FIELD, OF_LOCALS, OF_ROOTS, Owners, sum_up
from dumpagent.analyze.heap.sizes import HeapLayout, learn_sizes
from dumpagent.analyze.heapgraph import HeapGraph, build
from dumpagent.analyze.memory import Budget
from dumpagent.analyze.model import DumpPart, HeapPart
from dumpagent.analyze.native import Array
from dumpagent.analyze.opened import open_heap
from dumpagent.analyze.paths import is_jdk
from dumpagent.hprof.source import ByteSource

# Source: JDK InnerClassLambdaMetafactory, ProxyGenerator, MethodAccessorGenerator, LambdaForm: numbers and addresses in
# the names of classes made at run time differ from run to run.
_HIDDEN = re.compile(r"[/+]0x[0-9a-f]+|(?<=\$\$Lambda)\$\d+")
_COUNTED = re.compile(r"(\$Proxy|Accessor|LambdaForm\$[A-Za-z]+)\$?\d+")
_FILLER = "jdk.internal.vm.Filler"  # Source: JDK 20 and later, CollectedHeap::fill_with_object


@dataclass(frozen=True, slots=True)
class Amount:
    """Objects and their bytes; what they keep alive, where that is known."""

    objects: int = 0
    size_bytes: int = 0
    retained_bytes: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(
            self.objects + other.objects,
            self.size_bytes + other.size_bytes,
            self.retained_bytes + other.retained_bytes,
        )


@dataclass(frozen=True, slots=True)
class Ruler:
    """By what a heap is measured: its JVM, how objects lie in it, and the bytes of an object by the name of its class."""

    jvm: str | None
    layout: HeapLayout
    bases: dict[str, int]

    def fits(self, other: Ruler) -> bool:
        """Say whether bytes of the two can be compared; of a JVM that is not known, its layout decides."""
        same_jvm = self.jvm is None or other.jvm is None or self.jvm == other.jvm
        return same_jvm and self.layout == other.layout


@dataclass(frozen=True, slots=True)
class Measured:
    """One heap. `owners` is by class, field and kind; `filler_bytes` are those of unreachable objects that fill gaps."""

    side: Side
    dump: DumpPart
    heap: HeapPart
    ruler: Ruler
    classes: dict[str, Amount]
    owners: dict[tuple[str, str, str], Amount]
    filler_bytes: int


def measure(
    source: ByteSource, known: Subject, budget: Budget, *, step: Steps, spill: str | None = None, like: Ruler | None = None
) -> Measured:  # fmt: skip
    """Measure the heap in `source`; where `like` does not fit, with the sizes that its objects have there.

    Raises NoHeap, NeedsMoreMemory, OSError, MemoryError.
    """
    arrays = Arrays(spill=spill)
    opened = open_heap(source, arrays, budget, size_bytes=known.size_bytes, step=step)
    step("finding who keeps what alive")
    graph = build(opened, arrays)
    owners = Owners(arrays, opened.index, opened.classes, opened.class_numbers, graph.came_from)
    opened.read_again(owners, step("reading who holds what"))
    names = opened.classes.names
    own = graph.retained.sizes
    bases = {plain_name(name): int(own.base[each]) for each, name in enumerate(names)}
    ruler = Ruler(known.jvm, opened.layout, bases)
    sizes = own if like is None or like.fits(ruler) else _as_in(graph, like)
    counts, own_bytes = _sums(graph, opened.edges.class_of, sizes, len(names))
    classes = dict[str, Amount]()
    for each in np.flatnonzero(counts).tolist():
        found = Amount(int(counts[each]), int(own_bytes[each]), int(graph.by_class.retained[each]))
        name = plain_name(names[each])
        classes[name] = classes.get(name, Amount()) + found
    dump, heap = dump_part(opened, known), heap_part(graph)
    side = Side(
        name=dump.name, size_bytes=dump.size_bytes, dump_time=dump.dump_time, jvm=dump.jvm, state=dump.state,
        layout=heap.layout, reachable_objects=heap.reachable_objects, reachable_bytes=heap.reachable_bytes,
        unreachable_bytes=heap.unreachable_bytes,
    )  # fmt: skip
    return Measured(side, dump, heap, ruler, classes, _by_owner(graph, owners, sizes), _filler_bytes(graph))


def plain_name(name: str) -> str:
    """Give the name of a class without what differs from run to run."""
    return _COUNTED.sub(r"\1", _HIDDEN.sub("", name))


def _as_in(graph: HeapGraph, like: Ruler) -> ObjectSizes:
    """Give the sizes that objects of this heap would have in the heap that `like` is of."""
    classes = graph.opened.classes
    sizes = learn_sizes(like.layout, classes, np.zeros((classes.count, 2), np.int64))
    base = [
        like.bases.get(plain_name(name), guess)
        for name, guess in zip(classes.names, sizes.base.tolist(), strict=True)
    ]
    return replace(sizes, base=np.array(base, np.int64))


def _sums(graph: HeapGraph, group: Array, sizes: ObjectSizes, count: int) -> tuple[Array, Array]:
    counts, size_bytes = np.zeros(count, np.int64), np.zeros(count, np.int64)
    edges = graph.opened.edges
    sum_up(
        graph.number, group, edges.class_of, edges.elements_of, sizes.base, sizes.widths, sizes.alignment, counts, size_bytes
    )  # fmt: skip
    return counts, size_bytes


def _by_owner(graph: HeapGraph, owners: Owners, sizes: ObjectSizes) -> dict[tuple[str, str, str], Amount]:
    names = owners.names
    application = np.array([False] * FIRST_FIELD + [not is_jdk(name) for name, _, _ in names], bool)
    threads = graph.opened.classes.descending_from("java.lang.Thread")
    class_of = graph.opened.edges.class_of
    owner = owners.of_objects(graph.number, class_of, application, threads)
    counts, size_bytes = _sums(graph, owner, sizes, FIRST_FIELD + len(names))
    found = dict[tuple[str, str, str], Amount]()
    for each in np.flatnonzero(counts).tolist():
        if each in (OF_ROOTS, OF_LOCALS):
            key = ("", "", "root" if each == OF_ROOTS else "local")
        else:
            name, label, static = names[each - FIRST_FIELD]
            key = (plain_name(name), label, "static" if static else "field")
        found[key] = found.get(key, Amount()) + Amount(int(counts[each]), int(size_bytes[each]))
    return found


def _filler_bytes(graph: HeapGraph) -> int:
    """Give the bytes of objects that a collector wrote to fill gaps, where they have classes of their own."""
    classes = [each for each, name in enumerate(graph.opened.classes.names) if name.startswith(_FILLER)]
    places = (
        np.flatnonzero(np.isin(graph.opened.edges.class_of, classes)) if classes else np.zeros(0, np.int64)
    )
    places = places[graph.number[places] == 0]
    return sum(graph.retained.shallow_of(each) for each in places.tolist())
