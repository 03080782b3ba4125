"""The first reading of a heap: where objects begin, which classes and roots there are.

Nothing is known before it; after it the objects have numbers, and the memory that the rest needs is known.
"""

from __future__ import annotations

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.heap.elements import class_bytes, read_id, root_bytes, width_of
from dumpagent.analyze.heap.index import ObjectIndex, mark
from dumpagent.analyze.heap.segments import DamagedSegment
from dumpagent.analyze.native import Array, be32, compiled, int64
from dumpagent.hprof.records import CLASS_DUMP, INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY

# What the loop keeps between two calls, and why it came back.
(
    _STATUS,
    _SKIP,
    _PAGES,
    _ROOTS,
    _CLASS_BYTES,
    _CLASSES,
    _INSTANCES,
    _ARRAYS,
    _ELEMENTS,
    _DATA,
    _TWICE,
    _SAMPLES,
    _NO_ADDRESSES,
) = range(13)
_READ, _BAD, _GROW_PAGES, _GROW_ROOTS, _GROW_CLASSES, _UNALIGNED = range(6)
_SAMPLES_MOST = 20_000
ROOT_KIND, ROOT_ID, ROOT_THREAD, ROOT_FRAME = range(4)
Grid = tuple[Array, Array, Array]


class UnalignedIdentifiers(Exception):
    """An identifier is no multiple of the step: start anew with steps of one byte."""


@compiled
def _scan(
    content: Array,
    position: int,
    end: int,
    id_size: int,
    shift: int,
    state: Array,
    grid: Grid,
    roots: Array,
    classes: Array,
    samples: Array,
) -> int:
    pages, words, slots = grid
    state[0] = 0
    while position < end:
        if state[1] > 0:
            step = min(state[1], end - position)
            position += step
            state[1] -= step
            continue
        tag = int64(content[position])
        if tag in (INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY):
            head = 10 + id_size if tag == PRIMITIVE_ARRAY else 9 + 2 * id_size
            if position + head > end:
                break
            at = position + 5 + id_size
            if tag == INSTANCE:
                values = be32(content, int64(at + id_size))
                elements = 0
            else:
                elements = be32(content, int64(at))
                width = id_size if tag == OBJECT_ARRAY else width_of(int64(content[at + 4]), id_size)
                if width == 0 or (width == id_size and tag == PRIMITIVE_ARRAY and content[at + 4] == 2):
                    state[0] = 1
                    break
                values = elements * width
            object_id = read_id(content, position + 1, id_size)
            used = mark(pages, words, slots, shift, state[2], object_id)
            if used == -1:
                state[0] = 2
                break
            if used == -2:
                state[0] = 5
                break
            # Counted for records that come twice too: these are upper bounds of what a later reading writes.
            if tag == INSTANCE:
                state[9] += values
            elif tag == OBJECT_ARRAY:
                state[8] += elements
            if used <= -3:
                state[10 if used == -3 else 12] += 1
            else:
                state[2] = used
                if tag == INSTANCE:
                    state[6] += 1
                else:
                    state[7] += 1
                    if state[11] < len(samples):
                        samples[state[11], 0] = object_id
                        samples[state[11], 1] = elements
                        samples[state[11], 2] = 0 if tag == OBJECT_ARRAY else width
                        state[11] += 1
            state[1] = values
            position += head
        elif tag == CLASS_DUMP:
            length = class_bytes(content, position, end, id_size)
            if length < 0:
                state[0] = 1 if length == -2 else 0
                break
            if state[4] + length > len(classes):
                state[0] = 4
                break
            used = mark(pages, words, slots, shift, state[2], read_id(content, position + 1, id_size))
            if used == -1:
                state[0] = 2
                break
            if used == -2:
                state[0] = 5
                break
            if used <= -3:
                state[10 if used == -3 else 12] += 1
            else:
                state[2] = used
                classes[state[4] : state[4] + length] = content[position : position + length]
                state[4] += length
                state[5] += 1
            position += length
        else:
            length = root_bytes(tag, id_size)
            if length < 0:
                state[0] = 1
                break
            if position + length > end:
                break
            if tag == 0xC3:
                used = mark(pages, words, slots, shift, state[2], read_id(content, position + 1, id_size))
                if used == -1:
                    state[0] = 2
                    break
                if used >= 0:
                    state[2] = used
            elif tag != 0xFE:
                if state[3] >= len(roots):
                    state[0] = 3
                    break
                at = state[3]
                roots[at, 0] = tag
                roots[at, 1] = read_id(content, position + 1, id_size)
                threaded = (
                    tag == 0x02 or tag == 0x03 or tag == 0x04 or tag == 0x06 or tag == 0x08 or tag == 0x8E
                )
                roots[at, 2] = be32(content, int64(position + 1 + id_size)) if threaded else -1
                framed = tag == 0x02 or tag == 0x03
                roots[at, 3] = be32(content, int64(position + 5 + id_size)) if framed else -1
                state[3] += 1
            position += length
    return position


class HeapCount:
    """A HeapReader that numbers objects and collects classes and roots. Raises UnalignedIdentifiers from `read`."""

    def __init__(
        self, arrays: Arrays, *, id_size: int, shift: int, pages_expected: int, pages_most: int
    ) -> None:
        self._id_size = id_size
        self._pages_most = pages_most
        self.index = ObjectIndex(arrays, shift=shift, pages_expected=min(pages_expected, pages_most))
        self._state = np.zeros(13, np.int64)
        self._roots = np.zeros((1 << 14, 4), np.int64)
        self._classes = np.zeros(1 << 22, np.uint8)
        self._samples = np.zeros((_SAMPLES_MOST, 3), np.int64)
        self.offset = 0

    def read(self, content: Array, position: int, end: int) -> int:
        index, state = self.index, self._state
        while True:
            grid = (index.pages, index.words, index.slots)
            position = int(
                _scan(
                    content,
                    position,
                    end,
                    self._id_size,
                    index.shift,
                    state,
                    grid,
                    self._roots,
                    self._classes,
                    self._samples,
                )
            )
            status = state[_STATUS]
            index.used = int(state[_PAGES])
            if status == _READ:
                return position
            if status == _BAD:
                raise DamagedSegment("something that no heap has stands in a heap segment")
            if status == _UNALIGNED:
                raise UnalignedIdentifiers
            if status == _GROW_PAGES:
                if index.used >= self._pages_most:
                    raise DamagedSegment("its objects lie too far apart for the memory at hand")
                index.grow()
            elif status == _GROW_ROOTS:
                self._roots = np.concatenate([self._roots, np.zeros_like(self._roots)])
            else:
                self._classes = np.concatenate([self._classes, np.zeros_like(self._classes)])

    @property
    def between_records(self) -> bool:
        return bool(self._state[_SKIP] == 0)

    @property
    def roots(self) -> Array:
        """Give the roots, a row each: kind (its tag), identifier, serial number of its thread, frame; -1: none."""
        return self._roots[: self._state[_ROOTS]]

    @property
    def class_records(self) -> Array:
        return self._classes[: self._state[_CLASS_BYTES]]

    @property
    def class_count(self) -> int:
        return int(self._state[_CLASSES])

    @property
    def array_samples(self) -> Array:
        """Give arrays, a row each: identifier, elements, bytes of an element (0: a reference)."""
        return self._samples[: self._state[_SAMPLES]]

    @property
    def elements(self) -> int:
        """Give how many elements all arrays of references have."""
        return int(self._state[_ELEMENTS])

    @property
    def instances(self) -> int:
        return int(self._state[_INSTANCES])

    @property
    def arrays(self) -> int:
        return int(self._state[_ARRAYS])

    @property
    def twice(self) -> int:
        """Give how many records were of an object that was there already."""
        return int(self._state[_TWICE])

    @property
    def no_addresses(self) -> int:
        """Give how many records had an identifier that is no address, such as 0: they are left out."""
        return int(self._state[_NO_ADDRESSES])

    @property
    def references_most(self) -> int:
        """Give how many references there can be at most."""
        return self.elements + int(self._state[_DATA]) // self._id_size
