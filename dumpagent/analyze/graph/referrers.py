"""Who refers to each object, in the numbers of a depth-first walk.

Nineteen of twenty objects have one referrer, from which the walk came: only those of the others are kept.
"""

from __future__ import annotations

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.graph.walk import Numbering
from dumpagent.analyze.native import Array, compiled, int64, popcount32

WIDE_FROM = 1 << 32  # from as many referrers on their places take 64 bits


@compiled
def _count(starts: Array, edges: Array, number: Array, counts: Array) -> None:
    for owner in range(len(starts)):
        if number[owner] == 0:
            continue
        cursor = int64(starts[owner])
        while cursor != 0:
            edge = int64(edges[cursor])
            counts[number[edge & 0x7FFFFFFF]] += 1
            cursor = 0 if edge & 0x80000000 else cursor + 1


@compiled
def _mark_shared(counts: Array, words: Array) -> tuple[int, int]:
    """Note who has several referrers; give how many these are, and how many referrers they have together."""
    shared, total = 0, 0
    for at in range(len(words)):
        bits = 0
        for bit in range(32):
            each = (at << 5) + bit
            if each < len(counts) and counts[each] > 1:
                bits |= 1 << bit
                total += int64(counts[each])
        words[at] = np.uint64(bits) | (np.uint64(shared) << np.uint64(32))
        shared += popcount32(bits)
    return shared, total


@compiled
def _begin(counts: Array, who: Array, starts: Array) -> None:
    shared, total = 0, 0
    for each in range(len(counts)):
        if counts[each] > 1:
            who[shared] = each
            starts[shared] = total
            total += int64(counts[each])
            shared += 1
    starts[shared] = total


@compiled
def _fill(
    starts: Array, edges: Array, number: Array, words: Array, first: Array, filled: Array, referrers: Array
) -> None:
    for owner in range(len(starts)):
        owner_number = int64(number[owner])
        if owner_number == 0:
            continue
        cursor = int64(starts[owner])
        while cursor != 0:
            edge = int64(edges[cursor])
            cursor = 0 if edge & 0x80000000 else cursor + 1
            target = int64(number[edge & 0x7FFFFFFF])
            word = words[target >> 5]
            bit = np.uint64(1) << np.uint64(target & 31)
            if word & bit:
                at = int64(word >> np.uint64(32)) + popcount32(int64(word & (bit - np.uint64(1))))
                referrers[int64(first[at]) + int64(filled[at])] = owner_number
                filled[at] += 1


class Referrers:
    """Who refers to whom, as numbers of the walk; 0 stands for the roots.

    `shared` are those with several referrers, ascending; those of `shared[k]` are `referrers[first[k]:first[k + 1]]`.
    """

    def __init__(self, arrays: Arrays, walked: Numbering, roots: Array, starts: Array, edges: Array) -> None:
        counts = arrays.zeros(walked.count + 1, np.uint32)
        np.add.at(counts, walked.number[roots], np.uint32(1))
        _count(starts, edges, walked.number, counts)
        words = arrays.zeros((walked.count >> 5) + 1, np.uint64)
        shared, total = (int(each) for each in _mark_shared(counts, words))
        wide = np.uint32 if total < WIDE_FROM else np.uint64
        self.shared, self.first = arrays.zeros(shared, np.uint32), arrays.zeros(shared + 1, wide)
        _begin(counts, self.shared, self.first)
        arrays.release(counts)
        self.referrers = arrays.zeros(total, np.uint32)
        filled = arrays.zeros(shared, np.uint32)
        for root in walked.number[roots]:
            at = int(np.searchsorted(self.shared, root))
            if at < shared and self.shared[at] == root:  # the roots themselves are a referrer: number 0
                filled[at] += 1
        _fill(starts, edges, walked.number, words, self.first, filled, self.referrers)
        arrays.release(words)
        arrays.release(filled)

    def of(self, number: int, *, alone: int) -> Array:
        """Give the numbers of all referrers; `alone` is the one of an object that has one."""
        at = int(np.searchsorted(self.shared, number))
        if at < len(self.shared) and self.shared[at] == number:
            return self.referrers[int(self.first[at]) : int(self.first[at + 1])]
        return np.array([alone], np.uint32)
