"""How large objects are in the JVM's heap, which a dump does not say: learned from the distances between them.

An object of a class is as large as the least distance from one of its objects to the next object: that holds for every
JVM, alignment and layout of fields. Where a class has too few objects, the layout says it that explains most arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dumpagent.analyze.graph.retained import ObjectSizes
from dumpagent.analyze.heap.classes import REFERENCES_KIND, Classes
from dumpagent.analyze.heap.index import ObjectIndex
from dumpagent.analyze.native import Array

_SURE_FROM = 4  # as many distances of one class are believed
_DOUBT_BYTES = 8  # a gap between fields, or an injected field


@dataclass(frozen=True, slots=True)
class HeapLayout:
    """Bytes of an array's header, of an object's header, and of a reference; objects begin at multiples of `alignment`."""

    array_header: int
    header: int
    reference: int
    alignment: int
    known: bool = True

    def __str__(self) -> str:
        if not self.known:
            return "as in the dump"
        kind = "compressed references" if self.reference == 4 else "full references"
        kind = (
            "32-bit references"
            if self.array_header == 12 and self.header == 8 and self.reference == 4
            else kind
        )
        more = f", objects at multiples of {self.alignment}" if self.alignment != 8 else ""
        return f"{kind}, headers of {self.header} bytes{more}"


# Source: JDK oopDesc and arrayOopDesc: mark word 8, class pointer 4 or 8, array length 4; JDK 25 can do with 8 in all;
# 32-bit JVMs: mark word, class pointer, length of 4 each.
_HEADERS = ((16, 12), (24, 16), (20, 16), (12, 8))
_ALIGNMENTS = (8, 16, 32, 64, 128, 256)


def learn_layout(samples: Array, index: ObjectIndex, id_size: int) -> HeapLayout:
    """Give the layout that explains most distances between arrays and what follows them.

    `samples` are arrays: identifier, elements, bytes of an element (0: a reference).
    """
    unknown = HeapLayout(2 * id_size, 2 * id_size, id_size, 8, known=False)
    if not len(samples):
        return unknown
    gaps = index.gaps(samples[:, 0])
    seen = gaps > 0
    gaps, elements, widths = gaps[seen], samples[seen, 1], samples[seen, 2]
    best, most = unknown, len(gaps) // 2
    for alignment in _ALIGNMENTS:
        for reference in (4, 8) if id_size == 8 else (4,):
            for array_header, header in _HEADERS:
                size = array_header + elements * np.where(widths == 0, reference, widths)
                votes = int((((size + alignment - 1) & -alignment) == gaps).sum())
                if votes > most:
                    best, most = HeapLayout(array_header, header, reference, alignment), votes
    return best


def learn_sizes(layout: HeapLayout, classes: Classes, gaps: Array) -> ObjectSizes:
    """Give the sizes of all classes' objects; `gaps` has, by class, the least distance and how many were seen."""
    narrower = classes.references * (classes.id_size - layout.reference)
    guess = layout.header + classes.data_bytes - narrower
    guess = (guess + layout.alignment - 1) & -layout.alignment
    least, seen = gaps[:, 0], gaps[:, 1]
    believed = (least > 0) & ((seen >= _SURE_FROM) | (least <= guess + _DOUBT_BYTES))
    base = np.where(believed, least, guess)
    arrays = classes.widths > 0
    base[arrays] = layout.array_header
    widths = classes.widths.copy()
    widths[classes.kinds == REFERENCES_KIND] = layout.reference
    mirror = classes.by_name.get("java.lang.Class", -1)
    if mirror >= 0:
        widths[mirror] = 1  # its elements are the bytes of the class's statics
    return ObjectSizes(base.astype(np.int64), widths.astype(np.int64), layout.alignment)


def static_bytes(classes: Classes, layout: HeapLayout) -> Array:
    """Give the bytes that the statics of each class take, which stand behind the fields of its class object."""
    kinds = classes.statics[:, 1]
    widths = np.zeros(256, np.int64)
    for kind, width in {2: layout.reference, 4: 1, 5: 2, 6: 4, 7: 8, 8: 1, 9: 2, 10: 4, 11: 8}.items():
        widths[kind] = width
    sums = np.concatenate([[0], np.cumsum(widths[kinds & 255])])
    found: Array = sums[classes.static_starts[1:]] - sums[classes.static_starts[:-1]]
    return found
