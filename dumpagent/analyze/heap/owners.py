"""One more reading of a heap: by which field each object is reached on the way that tells most, and whose field that is.

Each object belongs to one owner: the last static or field of application code on the way to it. What the JDK's own
objects lead to (a map's table, its entries) belongs to the owner of the map; what leads on in a list, to the list's.
"""

from __future__ import annotations

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.heap.classes import Classes, lookup
from dumpagent.analyze.heap.elements import class_bytes, read_id, root_bytes, width_of
from dumpagent.analyze.heap.index import ObjectIndex, number_of
from dumpagent.analyze.heap.segments import DamagedSegment
from dumpagent.analyze.native import Array, be32, compiled, inlined, int64
from dumpagent.hprof.records import CLASS_DUMP, INSTANCE, OBJECT_ARRAY, OBJECT_TYPE, PRIMITIVE_ARRAY

_STATUS, _SKIP = range(2)
# Owners that are no field: what roots hold, and what only the stack of a thread holds.
OF_ROOTS, OF_LOCALS = 1, 2
FIRST_FIELD = 3


@compiled
def _read(
    content: Array, position: int, end: int, id_size: int, shift: int, state: Array, grid: tuple[Array, Array],
    table: tuple[Array, Array], layout: tuple[Array, Array, Array], came_from: Array, reached_by: Array,
) -> int:  # fmt: skip
    starts, offsets, labels = layout
    state[0] = 0
    while position < end:
        if state[1] > 0:
            step = min(state[1], end - position)
            position += step
            state[1] -= step
            continue
        tag = int64(content[position])
        if tag == INSTANCE:
            if position + 9 + 2 * id_size > end:
                break
            at = position + 9 + 2 * id_size
            length = be32(content, int64(at - 4))
            if at + length > end:
                break
            owner = number_of(grid[0], grid[1], shift, read_id(content, position + 1, id_size))
            each = lookup(table[0], table[1], read_id(content, position + 5 + id_size, id_size))
            position = at + length
            if owner < 0 or each < 0:
                continue
            for place in range(starts[each], starts[each + 1]):
                if offsets[place] + id_size > length:
                    break
                target = number_of(grid[0], grid[1], shift, read_id(content, at + offsets[place], id_size))
                if target >= 0 and came_from[target] == owner and reached_by[target] == 0:
                    reached_by[target] = labels[place]
        elif tag in (OBJECT_ARRAY, PRIMITIVE_ARRAY):
            head = 10 + id_size if tag == PRIMITIVE_ARRAY else 9 + 2 * id_size
            if position + head > end:
                break
            count = be32(content, int64(position + 5 + id_size))
            width = (
                id_size if tag == OBJECT_ARRAY else width_of(int64(content[position + 9 + id_size]), id_size)
            )
            position += head
            state[1] = count * width
        else:
            length = (
                class_bytes(content, position, end, id_size)
                if tag == CLASS_DUMP
                else root_bytes(tag, id_size)
            )
            if length == -2 or (length < 0 and tag != CLASS_DUMP):
                state[0] = 1
                break
            if length < 0 or position + length > end:
                break
            position += length
    return position


@inlined
def _owner(
    each: int, above: int, label: int, inherited: int, class_of: Array, application: Array, threads: Array
) -> int:
    """Give the owner of an object that `above` leads to by the field `label`; `inherited` is that of `above`."""
    leads_on = above < 0xFFFFFFFE and class_of[above] == class_of[each] and inherited >= 3
    if label != 0 and application[label] and not leads_on:
        return label
    if inherited >= 2:
        return inherited
    if label != 0:
        return label
    if above < 0xFFFFFFFE and threads[class_of[above]]:
        return 2
    return 1


@compiled
def _spread(
    number: Array, came_from: Array, reached_by: Array, class_of: Array, application: Array, threads: Array, owner: Array
) -> None:  # fmt: skip
    """Give each reachable object its owner: walk up to one that has it, then down again."""
    way = np.zeros(1 << 12, np.int64)
    for first in range(len(number)):
        if number[first] == 0:
            continue
        while owner[first] == 0:
            # Of a way that is longer than the room for it, the upper part is done first.
            here, count = int64(first), 0
            while owner[here] == 0:
                way[count % len(way)] = here
                count += 1
                above = int64(came_from[here])
                if above >= 0xFFFFFFFE:
                    break
                here = above
            for back in range(min(count, len(way))):
                each = way[(count - 1 - back) % len(way)]
                above = int64(came_from[each])
                inherited = int64(owner[above]) if above < 0xFFFFFFFE else int64(0)
                owner[each] = _owner(
                    each, above, int64(reached_by[each]), inherited, class_of, application, threads
                )


@compiled
def sum_up(
    number: Array, group: Array, class_of: Array, elements_of: Array, base: Array, widths: Array, alignment: int,
    counts: Array, sizes: Array,
) -> None:  # fmt: skip
    """Add up reachable objects and their bytes by the number that `group` has for each."""
    for each in range(len(number)):
        if number[each] != 0:
            of = int64(class_of[each])
            size = base[of] + int64(elements_of[each]) * widths[of]
            counts[group[each]] += 1
            sizes[group[each]] += (size + alignment - 1) & -alignment


class Owners:
    """A HeapReader that finds the field by which each object is reached. `names` gives class and field of each owner."""

    def __init__(
        self,
        arrays: Arrays,
        index: ObjectIndex,
        classes: Classes,
        class_numbers: Array,
        came_from: Array,
    ) -> None:
        self._arrays, self._index, self._classes, self._came_from = arrays, index, classes, came_from
        self._known: dict[tuple[int, str, bool], int] = {}
        self._reached_by = arrays.zeros(index.count, np.uint32)
        self._labels = self._fields()
        self._state = np.zeros(2, np.int64)
        self._statics(class_numbers)

    @property
    def names(self) -> list[tuple[str, str, bool]]:
        """Give, from FIRST_FIELD on, the class that has the field, the field, and whether it is a static."""
        return [(self._classes.names[each], label, static) for each, label, static in self._known]

    def read(self, content: Array, position: int, end: int) -> int:
        index, classes = self._index, self._classes
        layout = classes.reference_starts, classes.reference_offsets, self._labels
        position = int(
            _read(
                content, position, end, classes.id_size, index.shift, self._state, (index.pages, index.words),
                classes.slots, layout, self._came_from, self._reached_by,
            )
        )  # fmt: skip
        if self._state[_STATUS]:
            raise DamagedSegment("something that no heap has stands in a heap segment")
        return position

    @property
    def between_records(self) -> bool:
        return bool(self._state[_SKIP] == 0)

    def of_objects(self, number: Array, class_of: Array, application: Array, threads: Array) -> Array:
        """Give the owner of each reachable object; `application` says of each owner whether the JDK has it not."""
        owner = self._arrays.zeros(self._index.count, np.uint32)
        _spread(number, self._came_from, self._reached_by, class_of, application, threads, owner)
        return owner

    def _label(self, class_number: int, name: str, *, static: bool) -> int:
        return self._known.setdefault((class_number, name, static), FIRST_FIELD + len(self._known))

    def _fields(self) -> Array:
        """Give the owner of each place in `reference_offsets`."""
        classes = self._classes
        labels = np.zeros(len(classes.reference_offsets), np.uint32)
        for number in range(classes.count):
            start, end = int(classes.reference_starts[number]), int(classes.reference_starts[number + 1])
            if start == end:
                continue
            fields = {each.offset: each for each in classes.fields_of(number) if each.kind == OBJECT_TYPE}
            for place in range(start, end):
                each = fields[int(classes.reference_offsets[place])]
                labels[place] = self._label(each.declared_by, each.name, static=False)
        return labels

    def _statics(self, class_numbers: Array) -> None:
        classes = self._classes
        for number in np.flatnonzero(class_numbers >= 0).tolist():
            found = [(name, value) for name, value in classes.statics_of(number) if value and value < 1 << 63]
            if not found:
                continue
            targets = self._index.numbers(np.array([value for _, value in found], np.int64)).tolist()
            for (name, _), target in zip(found, targets, strict=True):
                is_way = target >= 0 and int(self._came_from[target]) == int(class_numbers[number])
                if is_way and not self._reached_by[target]:
                    self._reached_by[target] = self._label(number, name, static=True)
