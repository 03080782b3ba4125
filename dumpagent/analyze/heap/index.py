"""Numbers the objects of a heap by their addresses: one bit for each 8 bytes of heap, and a count for each word of bits.

An object's number is how many objects begin before it, so nothing is sorted, and no address is kept. The heap is cut
into pages of 2^17 steps (1 MiB); only those in which an object begins have bits. A word is 64 bits wide: the low half
are 32 bits of heap, the high half is how many objects begin before them.
"""

from __future__ import annotations

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.native import Array, compiled, inlined, int64, popcount32

PAGE_STEPS_LOG = 17
PAGE_WORDS = 1 << (PAGE_STEPS_LOG - 5)
PAGES_MOST = (
    1 << 27
)  # 47 bits of address at 8 bytes a step. Source: Linux, x86-64 and arm64 user address space
BYTES_PER_PAGE = PAGE_WORDS * 8
NONE = -1


@inlined
def mark(pages: Array, words: Array, slots: Array, shift: int, used: int, object_id: int) -> int:
    """Note that an object begins at `object_id`.

    Gives the number of pages in use: `used`, or one more; -1: no page is left; -2: it cannot be an address of that
    step; -3: it was noted before; -4: it is no address at all.
    """
    if object_id <= 0 or object_id >> (PAGE_STEPS_LOG + shift) >= PAGES_MOST:
        return -4
    if object_id & ((1 << shift) - 1):
        return -2
    page = object_id >> (PAGE_STEPS_LOG + shift)
    slot = int64(pages[page])
    if slot == 0:
        if (used + 2) * PAGE_WORDS > len(words):
            return -1
        used += 1
        slot = int64(used)
        pages[page] = slot
        slots[used] = page
    step = object_id >> shift
    at = (slot << (PAGE_STEPS_LOG - 5)) + ((step >> 5) & (PAGE_WORDS - 1))
    bit = np.uint64(1) << np.uint64(step & 31)
    if words[at] & bit:
        return -3
    words[at] |= bit
    return used


@inlined
def number_of(pages: Array, words: Array, shift: int, object_id: int) -> int:
    """Give the number of the object that begins at `object_id`, or NONE."""
    if (
        object_id <= 0
        or object_id & ((1 << shift) - 1)
        or object_id >> (PAGE_STEPS_LOG + shift) >= PAGES_MOST
    ):
        return -1
    slot = int64(pages[object_id >> (PAGE_STEPS_LOG + shift)])
    if slot == 0:
        return -1
    step = object_id >> shift
    word = words[(slot << (PAGE_STEPS_LOG - 5)) + ((step >> 5) & (PAGE_WORDS - 1))]
    bit = np.uint64(1) << np.uint64(step & 31)
    if not word & bit:
        return -1
    return int64(word >> np.uint64(32)) + popcount32(int64(word & (bit - np.uint64(1))))


@inlined
def gap_after(pages: Array, words: Array, shift: int, object_id: int) -> int:
    """Give the bytes from this object to the next one that begins in the same page; 0 if none does."""
    slot = int64(pages[object_id >> (PAGE_STEPS_LOG + shift)])
    step = object_id >> shift
    first = (step >> 5) & (PAGE_WORDS - 1)
    base = slot << (PAGE_STEPS_LOG - 5)
    word = int64(words[base + first] & np.uint64(0xFFFFFFFF)) >> ((step & 31) + 1)
    if word:
        return (1 + popcount32((word & -word) - 1)) << shift
    for at in range(first + 1, PAGE_WORDS):
        word = int64(words[base + at] & np.uint64(0xFFFFFFFF))
        if word:
            return (((at - first) << 5) - (step & 31) + popcount32((word & -word) - 1)) << shift
    return 0


@compiled
def _count(words: Array, used: int) -> int:
    """Write into each word how many objects begin before it; give how many there are."""
    total = 0
    for at in range(PAGE_WORDS, (used + 1) * PAGE_WORDS):
        bits = words[at] & np.uint64(0xFFFFFFFF)
        words[at] = bits | (np.uint64(total) << np.uint64(32))
        total += popcount32(int64(bits))
    return total


@compiled
def _numbers(pages: Array, words: Array, shift: int, ids: Array, out: Array) -> None:
    for at in range(len(ids)):
        out[at] = number_of(pages, words, shift, ids[at])


@compiled
def _gaps(pages: Array, words: Array, shift: int, ids: Array, out: Array) -> None:
    for at in range(len(ids)):
        known = number_of(pages, words, shift, ids[at]) >= 0
        out[at] = gap_after(pages, words, shift, ids[at]) if known else 0


class ObjectIndex:
    """Which addresses are objects; after `finish`, which number each has.

    `shift` is the logarithm of the step: 3 where all identifiers are multiples of 8.
    """

    def __init__(self, arrays: Arrays, *, shift: int, pages_expected: int) -> None:
        self._arrays = arrays
        self.shift = shift
        self.pages = arrays.zeros(PAGES_MOST, np.int32, dense=False, may_spill=False)
        self.words = arrays.zeros((pages_expected + 2) * PAGE_WORDS, np.uint64, dense=False, may_spill=False)
        self.slots = np.zeros(pages_expected + 2, np.int64)
        self.used = 0
        self.count = 0

    @property
    def size_bytes(self) -> int:
        return self.used * BYTES_PER_PAGE

    def grow(self) -> None:
        """Make room for twice as many pages. Raises MemoryError."""
        larger = self._arrays.zeros(2 * len(self.words), np.uint64, dense=False, may_spill=False)
        filled = (self.used + 1) * PAGE_WORDS
        larger[:filled] = self.words[:filled]
        self._arrays.release(self.words)
        self.words = larger
        self.slots = np.concatenate(
            [self.slots, np.zeros(len(larger) // PAGE_WORDS - len(self.slots), np.int64)]
        )

    def finish(self) -> int:
        """Number the objects; give how many there are."""
        self.count = int(_count(self.words, self.used))
        return self.count

    def numbers(self, ids: Array) -> Array:
        """Give the numbers of these identifiers, NONE for what is no object."""
        out = np.empty(len(ids), np.int64)
        _numbers(self.pages, self.words, self.shift, np.ascontiguousarray(ids, np.int64), out)
        return out

    def gaps(self, ids: Array) -> Array:
        """Give the bytes from each of these objects to the next one, 0 where that is not known."""
        out = np.empty(len(ids), np.int64)
        _gaps(self.pages, self.words, self.shift, np.ascontiguousarray(ids, np.int64), out)
        return out

    def id_of(self, number: int) -> int:
        """Give the identifier of the object with this number."""
        filled = self.words[PAGE_WORDS : (self.used + 1) * PAGE_WORDS]
        low, high = 0, len(filled)
        while high - low > 1:
            middle = (low + high) // 2
            if int(filled[middle]) >> 32 <= number:
                low = middle
            else:
                high = middle
        bits, left = int(filled[low]) & 0xFFFFFFFF, number - (int(filled[low]) >> 32)
        for _ in range(left):
            bits &= bits - 1
        bit = (bits & -bits).bit_length() - 1
        slot, word = low // PAGE_WORDS + 1, low % PAGE_WORDS
        page = int(self.slots[slot])
        return ((page << PAGE_STEPS_LOG) + (word << 5) + bit) << self.shift
