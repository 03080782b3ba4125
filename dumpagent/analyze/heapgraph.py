"""The graph of a dump with everything that sums over it: what the parts of a report are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.graph.dominators import dominators
from dumpagent.analyze.graph.referrers import Referrers
from dumpagent.analyze.graph.retained import ByClass, Retained
from dumpagent.analyze.graph.walk import Numbering, ShortPaths
from dumpagent.analyze.heap.details import mark_texts
from dumpagent.analyze.heap.sizes import HeapLayout, learn_sizes
from dumpagent.analyze.native import Array
from dumpagent.analyze.opened import Opened

_MIRROR = "java.lang.Class"
_NAMES_MOST = 20_000
# Source: JDK, jdk.internal.loader.ClassLoaders (9 and later), sun.misc.Launcher (8).
_PERMANENT_LOADERS = ("jdk.internal.loader.ClassLoaders$", "sun.misc.Launcher$")


@dataclass(slots=True)
class HeapGraph:
    """Everything that is known without looking into single objects. `number` numbers what is reachable, from 1."""

    opened: Opened
    walked: Numbering
    came_from: Array
    referrers: Referrers
    retained: Retained
    by_class: ByClass
    is_text: Array
    strings: int
    thread_texts: dict[int, list[tuple[int, int]]]  # thread -> its strings and their characters
    references: int
    permanent: (
        Array  # by class: whether the JVM itself or a loader that lives as long as it has loaded the class
    )

    @property
    def number(self) -> Array:
        return self.walked.number

    def kept_by(self, each: int) -> int:
        """Give the bytes that an object keeps alive; 0 for one that is not reachable."""
        number = int(self.walked.number[each])
        return int(self.retained.bytes[number]) if number else 0

    def referrers_of(self, each: int) -> list[int]:
        """Give the objects that refer to a reachable object; the roots are none."""
        number = int(self.walked.number[each])
        found = self.referrers.of(number, alone=int(self.retained.idom[number]))
        return [int(self.walked.order[referrer]) for referrer in dict.fromkeys(found.tolist()) if referrer]


def build(opened: Opened, arrays: Arrays) -> HeapGraph:
    """Find what is reachable, who dominates whom, and what each keeps alive."""
    edges, classes = opened.edges, opened.classes
    walked = Numbering(arrays, opened.roots, edges.starts, edges.edges)
    threads = classes.descending_from("java.lang.Thread")
    permanent = _permanent(opened)
    paths = ShortPaths(
        arrays, _sources(opened, walked, threads, permanent), edges.starts, edges.edges, edges.class_of,
        thread_classes=threads, own_starts=opened.own_starts,
    )  # fmt: skip
    string_class = classes.by_name.get("java.lang.String", -1)
    is_text, strings = mark_texts(
        arrays, edges.class_of, edges.starts, edges.edges, walked.number, string_class
    )
    thread_texts = _thread_texts(opened, string_class)
    referrers = Referrers(arrays, walked, opened.roots, edges.starts, edges.edges)
    references = edges.count
    for each in (edges.starts, edges.edges):
        arrays.release(each)
    idom = dominators(arrays, walked.parent, referrers)
    sizes = learn_sizes(opened.layout, classes, edges.gaps)
    _learn_mirrors(opened, opened.layout, sizes.base)
    retained = Retained(arrays, idom, walked.order, edges.class_of, edges.elements_of, sizes)
    return HeapGraph(
        opened=opened, walked=walked, came_from=paths.came_from, referrers=referrers, retained=retained,
        by_class=retained.by_class(classes.count), is_text=is_text, strings=strings, thread_texts=thread_texts,
        references=references, permanent=permanent,
    )  # fmt: skip


def _permanent(opened: Opened) -> Array:
    """Say of each class whether it lives as long as the JVM: only then a way may begin at it."""
    loaders = opened.classes.heads[:, 2]
    numbers = opened.index.numbers(loaders)
    return np.array(
        [
            loader == 0 or (number >= 0 and opened.class_name(number).startswith(_PERMANENT_LOADERS))
            for loader, number in zip(loaders.tolist(), numbers.tolist(), strict=True)
        ],
        bool,
    )


def _sources(opened: Opened, walked: Numbering, threads: Array, permanent: Array) -> Array:
    """Give where ways begin: at permanent classes, then at roots that are no threads, then at threads."""
    of_class = opened.class_numbers[permanent]
    of_class = of_class[of_class >= 0]
    of_class = of_class[walked.number[of_class] > 0]
    is_thread = threads[opened.edges.class_of[opened.roots]]
    everything = np.concatenate([of_class, opened.roots[~is_thread], opened.roots[is_thread]])
    _, first = np.unique(everything, return_index=True)
    sources: Array = everything[np.sort(first)]
    return sources


def _thread_texts(opened: Opened, string_class: int) -> dict[int, list[tuple[int, int]]]:
    """Find the strings that a thread refers to, one of which is its name, while the references are at hand."""
    found: dict[int, list[tuple[int, int]]] = {}
    edges = opened.edges
    for thread in list(dict.fromkeys(opened.thread_of_serial.values()))[:_NAMES_MOST]:
        texts = [each for each in edges.references_of(thread) if edges.class_of[each] == string_class]
        holders = [each for each in edges.references_of(thread) if opened.class_name(each) == "char[]"]
        found[thread] = [(each, characters) for each in texts for characters in edges.references_of(each)[:1]]
        found[thread] += [(each, each) for each in holders]  # JDK 8 and older
    return found


def _learn_mirrors(opened: Opened, layout: HeapLayout, base: Array) -> None:
    """Learn the size of a class object without its statics, from the distances to what follows."""
    mirror = opened.classes.by_name.get(_MIRROR, -1)
    if mirror < 0:
        return
    known = opened.class_numbers >= 0
    gaps = opened.index.gaps(opened.classes.ids[known])
    statics = opened.edges.elements_of[opened.class_numbers[known]].astype(np.int64)
    own = (gaps - statics)[(gaps > 0) & (gaps - statics >= layout.header)]
    if len(own):
        # The gap is rounded up; what is least over all classes is hardly.
        base[mirror] = max(layout.header, int(own.min()))
