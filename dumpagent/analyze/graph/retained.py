"""How much memory each object keeps alive, and each class: sums over the tree of dominators."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.native import Array, compiled, inlined, int64


@inlined
def shallow(base: Array, widths: Array, alignment: int, class_number: int, elements: int) -> int:
    """Give the bytes of one object."""
    size = base[class_number] + elements * widths[class_number]
    return (size + alignment - 1) & -alignment


@compiled
def _sum_up(
    idom: Array,
    order: Array,
    class_of: Array,
    elements_of: Array,
    base: Array,
    widths: Array,
    alignment: int,
    retained: Array,
    below: Array,
) -> None:
    for number in range(len(idom) - 1, 0, -1):
        each = order[number]
        own = shallow(base, widths, alignment, int64(class_of[each]), int64(elements_of[each]))
        retained[number] += np.uint64(own)
        retained[idom[number]] += retained[number]
        below[number] += 1
        below[idom[number]] += below[number]
    below[0] += 1


@compiled
def _line_up(idom: Array, below: Array, place: Array, line: Array) -> None:
    """Put the tree in a line in which what an object dominates stands right behind it. `line` is room for a while."""
    place[0] = 0
    line[0] = 1
    for number in range(1, len(idom)):
        above = idom[number]
        place[number] = line[above]
        line[above] += below[number]
        line[number] = place[number] + 1
    for number in range(len(idom)):
        line[number] = 0
    for number in range(len(idom)):
        line[place[number]] = number


@compiled
def _by_class(
    line: Array, below: Array, order: Array, class_of: Array, elements_of: Array, base: Array, widths: Array, alignment: int,
    retained: Array, counts: Array, sizes: Array, kept: Array,
) -> None:  # fmt: skip
    until = np.zeros(len(counts), np.int64)
    for place in range(1, len(line)):
        number = line[place]
        each = order[number]
        class_number = int64(class_of[each])
        counts[class_number] += 1
        sizes[class_number] += shallow(base, widths, alignment, class_number, int64(elements_of[each]))
        if place >= until[class_number]:
            kept[class_number] += int64(retained[number])
            until[class_number] = place + int64(below[number])


@compiled
def _unreachable(
    number: Array, class_of: Array, elements_of: Array, base: Array, widths: Array, alignment: int
) -> tuple[int, int]:
    count, size = 0, 0
    for each in range(len(number)):
        if number[each] == 0:
            count += 1
            size += shallow(base, widths, alignment, int64(class_of[each]), int64(elements_of[each]))
    return count, size


@dataclass(frozen=True, slots=True)
class ObjectSizes:
    """How large objects are: `base` by class, and `widths` for each element; `alignment` is a power of 2."""

    base: Array
    widths: Array
    alignment: int


@dataclass(frozen=True, slots=True)
class ByClass:
    """Reachable objects by class number: how many, their own bytes, and what all of a class keep alive together."""

    counts: Array
    shallow: Array
    retained: Array


class Retained:
    """The tree of dominators with its sums, by the numbers of the walk; 0 stands for the roots, so for all of the heap."""

    def __init__(
        self,
        arrays: Arrays,
        idom: Array,
        order: Array,
        class_of: Array,
        elements_of: Array,
        sizes: ObjectSizes,
    ) -> None:
        self.idom, self.order, self.class_of, self.elements_of, self.sizes = (
            idom, order, class_of, elements_of, sizes,
        )  # fmt: skip
        count = len(idom)
        self.bytes = arrays.zeros(count, np.uint64)
        self.below = arrays.zeros(count, np.uint32)
        _sum_up(
            idom,
            order,
            class_of,
            elements_of,
            sizes.base,
            sizes.widths,
            sizes.alignment,
            self.bytes,
            self.below,
        )
        self.place, self.line = arrays.zeros(count, np.uint32), arrays.zeros(count, np.uint32)
        _line_up(idom, self.below, self.place, self.line)

    @property
    def total_bytes(self) -> int:
        return int(self.bytes[0])

    def by_class(self, class_count: int) -> ByClass:
        """Give the sums by class."""
        counts, own, kept = (np.zeros(class_count, np.int64) for _ in range(3))
        sizes = self.sizes
        _by_class(
            self.line, self.below, self.order, self.class_of, self.elements_of, sizes.base, sizes.widths, sizes.alignment,
            self.bytes, counts, own, kept,
        )  # fmt: skip
        return ByClass(counts, own, kept)

    def shallow_of(self, each: int) -> int:
        """Give the bytes of an object itself."""
        number = int(self.class_of[each])
        size = int(self.sizes.base[number]) + int(self.elements_of[each]) * int(self.sizes.widths[number])
        return (size + self.sizes.alignment - 1) & -self.sizes.alignment

    def unreachable(self, number: Array) -> tuple[int, int]:
        """Give how many objects no root leads to, and their bytes."""
        sizes = self.sizes
        count, size = _unreachable(
            number, self.class_of, self.elements_of, sizes.base, sizes.widths, sizes.alignment
        )
        return int(count), int(size)

    def children(self, number: int) -> Iterator[int]:
        """Give the numbers of what this object dominates immediately."""
        place = int(self.place[number])
        end = place + int(self.below[number])
        place += 1
        while place < end:
            child = int(self.line[place])
            yield child
            place += int(self.below[child])
