"""Finds where memory gathers: objects that keep much alive, of which no single thing below them keeps most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dumpagent.analyze.graph.retained import Retained, shallow
from dumpagent.analyze.native import Array, compiled, int64

_SHARE = 200  # what keeps less than a 200th of the heap alive is looked at together with the rest only
_CHAIN_FROM = 8


@compiled
def _chains(parents: Array, classes: Array, heads: Array, repeats: Array, longest: Array) -> None:
    """Find chains: objects below others of the same class, again and again. `heads` gives where each begins."""
    for at in range(len(parents)):
        heads[at] = at
        above = int64(parents[at])
        for _ in range(4):  # entry, value, map, table: the class comes again after so many steps
            if above < 0:
                break
            if classes[above] == classes[at]:
                heads[at] = heads[above]
                repeats[at] = repeats[above] + 1
                longest[heads[at]] = max(longest[heads[at]], repeats[at])
                break
            above = int64(parents[above])


@compiled
def _below_chains(parents: Array, longest: Array, least: int, below: Array) -> None:
    for at in range(len(parents)):
        above = int64(parents[at])
        below[at] = above >= 0 and (below[above] or longest[above] >= least)


@compiled
def _children(line: Array, below: Array, place: int, until: int, out: Array) -> int:
    count = 0
    at = place + 1
    while at < until and count < len(out):
        out[count] = line[at]
        count += 1
        at += int64(below[line[at]])
    return count


@compiled
def _sum_classes(
    line: Array, order: Array, class_of: Array, elements_of: Array, base: Array, widths: Array, alignment: int,
    start: int, end: int, counts: Array, sizes: Array,
) -> None:  # fmt: skip
    for place in range(start, end):
        each = order[line[place]]
        class_number = int64(class_of[each])
        counts[class_number] += 1
        sizes[class_number] += shallow(base, widths, alignment, class_number, int64(elements_of[each]))


@dataclass(frozen=True, slots=True)
class Accumulation:
    """An object (its number in the walk; 0: the roots) below which `size_bytes` gather in small pieces.

    `is_chain`: the pieces hang on one another, as in a linked list, and it is the first of them.
    """

    number: int
    size_bytes: int
    is_chain: bool = False


def accumulations(retained: Retained, class_of: Array) -> list[Accumulation]:
    """Give where memory gathers, most first."""
    total = retained.total_bytes
    least = max(1, total // _SHARE)
    large = np.flatnonzero(retained.bytes >= np.uint64(least))
    large = large[large > 0]
    if not len(large):
        return [Accumulation(0, total)]
    above = retained.idom[large]
    parents = np.where(above > 0, np.searchsorted(large, above), -1)
    sizes = retained.bytes[large].astype(np.int64)
    rest = sizes.copy()
    np.subtract.at(rest, parents[parents >= 0], sizes[parents >= 0])
    classes = class_of[retained.order[large]]
    heads, repeats, longest = (np.zeros(len(large), np.int64) for _ in range(3))
    _chains(parents, classes, heads, repeats, longest)
    below = np.zeros(len(large), bool)
    _below_chains(parents, longest, _CHAIN_FROM, below)
    chains = (longest >= _CHAIN_FROM) & ~below
    alone = ~chains & ~below & (rest >= least)
    found = [Accumulation(int(large[at]), int(sizes[at]), is_chain=True) for at in np.flatnonzero(chains)]
    found += [Accumulation(int(large[at]), int(rest[at])) for at in np.flatnonzero(alone)]
    at_roots = total - int(sizes[parents < 0].sum())
    if at_roots >= least:
        found.append(Accumulation(0, at_roots))
    return sorted(found, key=lambda each: (-each.size_bytes, each.number))


def small_children(retained: Retained, number: int) -> Array:
    """Give what this object dominates immediately, as far as it is none of the large ones."""
    place, count = int(retained.place[number]), int(retained.below[number])
    out = np.empty(count, np.uint32)
    found = int(_children(retained.line, retained.below, place, place + count, out))
    children = out[:found]
    small: Array = children[retained.bytes[children] < np.uint64(max(1, retained.total_bytes // _SHARE))]
    return small


def add_classes_below(retained: Retained, number: int, counts: Array, sizes: Array) -> None:
    """Add, by class, the number and bytes of the objects that one dominates, itself among them."""
    start, heap = int(retained.place[number]), retained.sizes
    _sum_classes(
        retained.line, retained.order, retained.class_of, retained.elements_of, heap.base, heap.widths, heap.alignment,
        max(1, start), start + int(retained.below[number]), counts, sizes,
    )  # fmt: skip
