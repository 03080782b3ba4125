"""Finds, for each object, the one that all ways from the roots lead through last: its immediate dominator.

The method is semi-NCA. Its second half can take quadratic time (a long list whose elements are shared); the steps are
counted, and where they grow too many it goes on with skip pointers, in n log n steps at most.
Source: L. Georgiadis, "Linear-Time Algorithms for Dominators and Related Problems" (2005), 2.4; E. W. Myers, "An
applicative random-access stack" (1983) for the skip pointers.
"""

from __future__ import annotations

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.graph.referrers import Referrers
from dumpagent.analyze.native import Array, compiled, inlined, int64

_STEPS_PER_OBJECT = 16


@inlined
def _least(ancestor: Array, label: Array, number: int, done: int) -> int:
    """Give the least label from `number` up to the last object above `done`; shorten that way.

    The way is turned around while it is walked up, so that it needs no stack, however long it is.
    """
    top, below = number, 0
    while ancestor[top] > done:
        following = int64(ancestor[top])
        ancestor[top] = below
        below, top = top, following
    beyond, least = ancestor[top], label[top]
    while below != 0:
        following = int64(ancestor[below])
        ancestor[below] = beyond
        if least < label[below]:
            label[below] = least
        else:
            least = label[below]
        below = following
    return int64(least)


@compiled
def _semidominators(
    parent: Array, ancestor: Array, label: Array, shared: Array, first: Array, referrers: Array, semi: Array
) -> None:
    at = len(shared) - 1
    for number in range(len(parent) - 1, 0, -1):
        least = int64(parent[number])
        if at >= 0 and shared[at] == number:
            for place in range(int64(first[at]), int64(first[at + 1])):
                referrer = int64(referrers[place])
                if referrer > number:
                    referrer = _least(ancestor, label, referrer, number)
                least = min(least, referrer)
            semi[at] = least
            at -= 1
        label[number] = least


@compiled
def _by_climbing(idom: Array, shared: Array, semi: Array, steps_most: int) -> int:
    """Turn the parents in `idom` into dominators; give where in `shared` it stopped for too many steps."""
    steps = 0
    for at in range(len(shared)):
        number = int64(shared[at])
        above = int64(idom[number])
        while above > semi[at]:
            above = int64(idom[above])
            steps += 1
        idom[number] = above
        if steps > steps_most:
            return at + 1
    return len(shared)


@compiled
def skip_up(idom: Array, shared: Array, semi: Array, begin: int, skip: Array, depth: Array) -> None:
    """Go on where climbing stopped, with pointers that skip ever longer ways up."""
    skip[0] = 0
    depth[0] = 0
    at = 0
    for number in range(1, len(idom)):
        if at < len(shared) and shared[at] == number:
            if at >= begin:
                above = int64(idom[number])
                while above > semi[at]:
                    over = int64(skip[above])
                    above = over if over > semi[at] else int64(idom[above])
                idom[number] = above
            at += 1
        above = int64(idom[number])
        over = int64(skip[above])
        depth[number] = depth[above] + 1
        even = int64(depth[above]) - int64(depth[over]) == int64(depth[over]) - int64(depth[skip[over]])
        skip[number] = skip[over] if even and above != 0 else above


def dominators(
    arrays: Arrays, parent: Array, referrers: Referrers, *, steps_per_object: int = _STEPS_PER_OBJECT
) -> Array:
    """Turn `parent`, the tree of a depth-first walk, into the tree of dominators; 0 stands for the roots."""
    ancestor, label = arrays.zeros(len(parent), np.uint32), arrays.zeros(len(parent), np.uint32)
    ancestor[:] = parent
    semi = arrays.zeros(len(referrers.shared), np.uint32)
    _semidominators(parent, ancestor, label, referrers.shared, referrers.first, referrers.referrers, semi)
    begin = int(_by_climbing(parent, referrers.shared, semi, steps_per_object * len(parent)))
    if begin < len(referrers.shared):
        skip_up(parent, referrers.shared, semi, begin, ancestor, label)
    for each in (ancestor, label, semi):
        arrays.release(each)
    return parent
