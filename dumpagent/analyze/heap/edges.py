"""The second reading of a heap: the class of each object, the elements of each array, and who refers to whom.

The references of one object stand one behind the other in `edges`; the last of them has its highest bit set.
`starts` says where those of an object begin, 0 if it has none.
"""

from __future__ import annotations

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.heap.classes import Classes, lookup
from dumpagent.analyze.heap.elements import class_bytes, read_id, root_bytes, width_of
from dumpagent.analyze.heap.index import ObjectIndex, gap_after, number_of
from dumpagent.analyze.heap.segments import DamagedSegment
from dumpagent.analyze.native import Array, be32, compiled, int64
from dumpagent.hprof.records import CLASS_DUMP, INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY

WIDE_FROM = 1 << 32  # from as many references on their places take 64 bits
LAST = 0x80000000
NUMBER = 0x7FFFFFFF
OBJECTS_MOST = NUMBER - 1
_STATUS, _SKIP, _EDGES, _OWNER, _FIRST, _ELEMENTS, _DANGLING, _LAST_ID, _LAST_CLASS = range(9)


@compiled
def _end_list(edges: Array, state: Array, starts: Array, owner: int, first: int) -> None:
    """Note that the references of `owner` are those from `first` on."""
    if state[2] > first:
        edges[state[2] - 1] |= np.uint32(0x80000000)
        starts[owner] = first


@compiled
def _read(
    content: Array, position: int, end: int, id_size: int, shift: int, state: Array,
    grid: tuple[Array, Array], table: tuple[Array, Array], graph: tuple[Array, Array, Array, Array],
    layout: tuple[Array, Array, Array], gaps: Array, primitive: Array,
) -> int:  # fmt: skip
    pages, words = grid
    keys, values = table
    class_of, elements_of, starts, edges = graph
    reference_starts, offsets, class_edges = layout
    state[0] = 0
    while position < end:
        if state[1] > 0:
            step = min(state[1], end - position)
            position += step
            state[1] -= step
            continue
        if state[5] > 0:
            owner = state[3]
            while state[5] > 0 and position + id_size <= end:
                target_id = read_id(content, position, id_size)
                position += id_size
                state[5] -= 1
                if target_id != 0:
                    target = number_of(pages, words, shift, target_id)
                    if target < 0:
                        state[6] += 1
                    elif target != owner:
                        edges[state[2]] = target
                        state[2] += 1
            if state[5] > 0:
                break
            _end_array(edges, state, starts, class_edges, int64(class_of[owner]))
            continue
        tag = int64(content[position])
        if tag == INSTANCE:
            if position + 9 + 2 * id_size > end:
                break
            at = position + 5 + id_size
            length = be32(content, int64(at + id_size))
            if at + id_size + 4 + length > end:
                break
            object_id = read_id(content, position + 1, id_size)
            owner = number_of(pages, words, shift, object_id)
            class_id = read_id(content, at, id_size)
            if class_id != state[7]:
                state[7] = class_id
                state[8] = lookup(keys, values, class_id)
            number = state[8]
            at += id_size + 4
            position = at + length
            if owner < 0 or class_of[owner] != 0xFFFFFFFF:
                continue
            if number < 0:
                class_of[owner] = len(reference_starts) - 2
                continue
            if state[2] + length // id_size + 1 > len(edges):
                state[0] = 1  # another file than the one that was scanned
                break
            class_of[owner] = number
            first = state[2]
            for each in range(reference_starts[number], reference_starts[number + 1]):
                if offsets[each] + id_size > length:
                    break
                target_id = read_id(content, at + offsets[each], id_size)
                if target_id != 0:
                    target = number_of(pages, words, shift, target_id)
                    if target < 0:
                        state[6] += 1
                    elif target != owner:
                        edges[state[2]] = target
                        state[2] += 1
            if class_edges[number] >= 0:
                edges[state[2]] = class_edges[number]
                state[2] += 1
            _end_list(edges, state, starts, owner, first)
            if gaps[number, 1] < 256:
                gap = gap_after(pages, words, shift, object_id)
                if gap > 0:
                    gaps[number, 1] += 1
                    if gaps[number, 0] == 0 or gap < gaps[number, 0]:
                        gaps[number, 0] = gap
        elif tag == PRIMITIVE_ARRAY:
            if position + 10 + id_size > end:
                break
            at = position + 5 + id_size
            count = be32(content, int64(at))
            kind = int64(content[at + 4])
            owner = number_of(pages, words, shift, read_id(content, position + 1, id_size))
            state[1] = count * width_of(kind, id_size)
            position = at + 5
            if owner >= 0 and class_of[owner] == 0xFFFFFFFF:
                class_of[owner] = primitive[kind]
                elements_of[owner] = count
        elif tag == OBJECT_ARRAY:
            if position + 9 + 2 * id_size > end:
                break
            at = position + 5 + id_size
            count = be32(content, int64(at))
            owner = number_of(pages, words, shift, read_id(content, position + 1, id_size))
            class_id = read_id(content, at + 4, id_size)
            position = at + 4 + id_size
            if owner < 0 or class_of[owner] != 0xFFFFFFFF:
                state[1] = count * id_size
                continue
            if state[2] + count + 1 > len(edges):
                state[0] = 1
                break
            number = lookup(keys, values, class_id)
            class_of[owner] = number if number >= 0 else len(reference_starts) - 2
            elements_of[owner] = count
            state[3] = owner
            state[4] = state[2]
            state[5] = count
            if count == 0:
                _end_array(edges, state, starts, class_edges, int64(class_of[owner]))
        elif tag == CLASS_DUMP:
            length = class_bytes(content, position, end, id_size)
            if length < 0:
                state[0] = 1 if length == -2 else 0
                break
            position += length
        else:
            length = root_bytes(tag, id_size)
            if length < 0:
                state[0] = 1
                break
            if position + length > end:
                break
            if tag == 0xC3:
                owner = number_of(pages, words, shift, read_id(content, position + 1, id_size))
                kind = int64(content[position + 9 + id_size])
                if owner >= 0 and width_of(kind, id_size) > 0 and kind != 2:
                    class_of[owner] = primitive[kind]
                    elements_of[owner] = be32(content, int64(position + 5 + id_size))
            position += length
    return position


@compiled
def _end_array(edges: Array, state: Array, starts: Array, class_edges: Array, number: int) -> None:
    if class_edges[number] >= 0:
        edges[state[2]] = class_edges[number]
        state[2] += 1
    _end_list(edges, state, starts, state[3], state[4])


class Edges:
    """A HeapReader that fills the arrays of a graph. `gaps` has, per class, the least distance to a next object."""

    def __init__(
        self,
        arrays: Arrays,
        index: ObjectIndex,
        classes: Classes,
        class_edges: Array,
        *,
        references_most: int,
    ) -> None:
        self._index, self._classes, self._arrays = index, classes, arrays
        count = index.count
        self.class_of = arrays.zeros(count, np.uint32)
        self.class_of[:] = 0xFFFFFFFF
        self.elements_of = arrays.zeros(count, np.uint32)
        self.starts = arrays.zeros(count, np.uint32 if references_most < WIDE_FROM else np.uint64)
        # Upper bound: each reference, one from each object to its class, and what `append` adds.
        self.edges = arrays.zeros(references_most + 2 * count + 1024, np.uint32, dense=False)
        self.gaps = np.zeros((classes.count, 2), np.int64)
        self._class_edges = class_edges
        self._primitive = np.zeros(12, np.int64)
        for kind, number in classes.primitive.items():
            self._primitive[kind] = number
        self._state = np.zeros(9, np.int64)
        self._state[_EDGES] = 1  # 0 means: no references

    def read(self, content: Array, position: int, end: int) -> int:
        classes = self._classes
        position = int(
            _read(
                content, position, end, classes.id_size, self._index.shift, self._state,
                (self._index.pages, self._index.words), classes.slots,
                (self.class_of, self.elements_of, self.starts, self.edges),
                (classes.reference_starts, classes.reference_offsets, self._class_edges),
                self.gaps, self._primitive,
            )
        )  # fmt: skip
        if self._state[_STATUS]:
            raise DamagedSegment("something that no heap has stands in a heap segment")
        return position

    @property
    def between_records(self) -> bool:
        return bool(self._state[_SKIP] == 0 and self._state[_ELEMENTS] == 0)

    def finish(self) -> None:
        """End the list of an array that was cut off."""
        if self._state[_ELEMENTS]:
            self._state[_ELEMENTS] = 0
            _end_list(self.edges, self._state, self.starts, self._state[_OWNER], self._state[_FIRST])

    @property
    def count(self) -> int:
        """Give how many references there are."""
        return int(self._state[_EDGES]) - 1

    @property
    def dangling(self) -> int:
        """Give how many references lead to what is no object of the dump."""
        return int(self._state[_DANGLING])

    def references_of(self, number: int) -> list[int]:
        """Give the numbers that the object refers to, in the order of its fields or elements."""
        at, found = int(self.starts[number]), list[int]()
        while at:
            found.append(int(self.edges[at]) & NUMBER)
            if int(self.edges[at]) & LAST:
                break
            at += 1
        return found

    def append(self, number: int, more: list[int]) -> None:
        """Let the object refer to `more` too."""
        if not more:
            return
        references = self.references_of(number) + more
        at = int(self._state[_EDGES])
        if at + len(references) > len(self.edges):
            larger = self._arrays.zeros(2 * len(self.edges) + len(references), np.uint32, dense=False)
            larger[:at] = self.edges[:at]
            self._arrays.release(self.edges)
            self.edges = larger
        self.edges[at : at + len(references)] = references
        self.edges[at + len(references) - 1] |= np.uint32(LAST)
        self.starts[number] = at
        self._state[_EDGES] = at + len(references)
