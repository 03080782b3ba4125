"""The third reading of a heap: the content of a few objects, the sizes of all collections, strings that are there often.

Strings are counted in a table of bounded size: where it is full, those seen least are forgotten, so that a count can be
too small by as many times as that happened, and never too large.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.heap.classes import INSTANCE_KIND, Classes, lookup
from dumpagent.analyze.heap.elements import class_bytes, read_id, root_bytes, width_of
from dumpagent.analyze.heap.index import ObjectIndex, number_of
from dumpagent.analyze.heap.segments import DamagedSegment
from dumpagent.analyze.native import Array, be32, be64, compiled, inlined, int64
from dumpagent.hprof.records import CLASS_DUMP, INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY

_STATUS, _SKIP, _KEPT, _KEPT_BYTES, _STRINGS, _FORGOTTEN, _LARGEST = range(7)
_READ, _BAD, _GROW, _FULL = range(4)
LARGEST = 64
TEXT_BYTES = 64
_TABLE_SLOTS = 1 << 18
# By class: collections, empty ones, slots, slots in use.
STAT_COUNT, STAT_EMPTY, STAT_SLOTS, STAT_USED = range(4)


@inlined
def _digest(content: Array, start: int, length: int, whole: int) -> int:
    """Give a hash of the bytes; never 0, which stands for an empty slot."""
    value = np.uint64(whole) * np.uint64(0x9E3779B97F4A7C15)
    at = start
    while at + 8 <= start + length:
        value = (value ^ np.uint64(be64(content, int64(at)))) * np.uint64(0xFF51AFD7ED558CCD)
        value ^= value >> np.uint64(32)
        at += 8
    while at < start + length:
        value = (value ^ np.uint64(content[at])) * np.uint64(0xC4CEB9FE1A85EC53)
        value ^= value >> np.uint64(29)
        at += 1
    return int64(value | np.uint64(1))


@inlined
def _count_string(
    content: Array, start: int, length: int, values: int, kind: int, table: Array, texts: Array, state: Array
) -> bool:
    """Count an array of characters; say no if the table has no room for one more."""
    digest = _digest(content, start, length, values)
    at = (digest >> 17) & (len(table) - 1)
    while table[at, 0] != 0:
        if table[at, 0] == digest and table[at, 2] == values:
            table[at, 1] += 1
            return True
        at = (at + 1) & (len(table) - 1)
    if state[4] * 4 >= len(table) * 3:
        return False
    state[4] += 1
    table[at, 0] = digest
    table[at, 1] = 1
    table[at, 2] = values
    table[at, 3] = kind
    shown = min(length, texts.shape[1])
    texts[at, :shown] = content[start : start + shown]
    return True


@inlined
def _count_collection(
    content: Array, at: int, length: int, number: int, class_number: int, id_size: int, shift: int, grid: tuple[Array, Array],
    collections: Array, elements_of: Array, stats: Array, largest: Array, state: Array,
) -> None:  # fmt: skip
    place = collections[class_number, 0]
    wide = collections[class_number, 1]
    if place < 0 or place + wide > length:
        return
    size = be64(content, int64(at + place)) if wide == 8 else be32(content, int64(at + place))
    if size < 0 or (wide == 4 and size > 0x7FFFFFFF):
        return
    stats[class_number, 0] += 1
    if size == 0:
        stats[class_number, 1] += 1
    room = collections[class_number, 2]
    if room >= 0 and room + id_size <= length:
        table = number_of(grid[0], grid[1], shift, read_id(content, at + room, id_size))
        if table >= 0:
            slots = int64(elements_of[table])
            stats[class_number, 2] += slots
            stats[class_number, 3] += min(size, slots)
    if size > largest[state[6], 0]:
        largest[state[6], 0] = size
        largest[state[6], 1] = number
        least = 0
        for each in range(1, len(largest)):
            if largest[each, 0] < largest[least, 0]:
                least = each
        state[6] = least


@compiled
def _read(
    content: Array, position: int, end: int, id_size: int, shift: int, state: Array, grid: tuple[Array, Array],
    keys: Array, class_numbers: Array, wanted: Array, is_text: Array, reachable: Array,
    rows: Array, kept: Array, collections: Array, elements_of: Array, stats: Array, largest: Array, table: Array, texts: Array,
) -> int:  # fmt: skip
    state[0] = 0
    last_id, last_number = int64(0), int64(-1)
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
            kind = int64(content[at + 4])
            if tag == INSTANCE:
                values = be32(content, int64(at + id_size))
            else:
                width = id_size if tag == OBJECT_ARRAY else width_of(kind, id_size)
                values = be32(content, int64(at)) * width
            number = number_of(grid[0], grid[1], shift, read_id(content, position + 1, id_size))
            if number < 0:
                position += head
                state[1] = values
                continue
            if wanted[number >> 3] >> (number & 7) & 1:
                length = min(values, 1 << 20)
                if position + head + length > end:
                    break
                if state[2] >= len(rows) or state[3] + head + length > len(kept):
                    state[0] = 2
                    break
                rows[state[2], 0] = number
                rows[state[2], 1] = state[3]
                rows[state[2], 2] = head + length
                kept[state[3] : state[3] + head + length] = content[position : position + head + length]
                state[2] += 1
                state[3] += head + length
                wanted[number >> 3] &= ~(np.uint8(1) << np.uint8(number & 7))
            if tag == INSTANCE:
                class_id = read_id(content, at, id_size)
                if class_id != last_id:
                    last_id, last_number = class_id, lookup(keys, class_numbers, class_id)
                if last_number >= 0 and collections[last_number, 0] >= 0 and reachable[number] != 0:
                    if position + head + values > end:
                        break
                    _count_collection(
                        content, position + head, values, number, last_number, id_size, shift, grid,
                        collections, elements_of, stats, largest, state,
                    )  # fmt: skip
            elif tag == PRIMITIVE_ARRAY and len(table) and is_text[number >> 3] >> (number & 7) & 1:
                length = min(values, 65536)
                if position + head + length > end:
                    break
                if not _count_string(content, position + head, length, values, kind, table, texts, state):
                    state[0] = 3
                    break
            position += head
            state[1] = values
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
            position += length
    return position


@compiled
def _texts_of(
    class_of: Array, starts: Array, edges: Array, number: Array, string_class: int, is_text: Array
) -> int:
    """Mark the arrays that reachable strings have their characters in; give how many strings there are."""
    count = 0
    for each in range(len(class_of)):
        if class_of[each] == string_class and number[each] != 0 and starts[each] != 0:
            target = int64(edges[starts[each]]) & 0x7FFFFFFF
            is_text[target >> 3] |= np.uint8(1) << np.uint8(target & 7)
            count += 1
    return count


@compiled
def forget(table: Array, texts: Array, most: int) -> tuple[Array, Array, int]:
    """Give the table without what was seen at most `most` times, and how many are left."""
    fresh, fresh_texts = np.zeros_like(table), np.zeros_like(texts)
    left = 0
    for each in range(len(table)):
        if table[each, 0] != 0 and table[each, 1] > most:
            at = (table[each, 0] >> 17) & (len(table) - 1)
            while fresh[at, 0] != 0:
                at = (at + 1) & (len(table) - 1)
            fresh[at] = table[each]
            fresh_texts[at] = texts[each]
            left += 1
    return fresh, fresh_texts, left


def mark_texts(
    arrays: Arrays, class_of: Array, starts: Array, edges: Array, number: Array, string_class: int
) -> tuple[Array, int]:
    """Give a bit for each object that says whether it holds a reachable string's characters; and how many strings."""
    is_text = arrays.zeros((len(class_of) >> 3) + 1, np.uint8)
    return is_text, int(_texts_of(class_of, starts, edges, number, string_class, is_text))


@dataclass(frozen=True, slots=True)
class RepeatedText:
    """An array of characters that is there `times` times at least, `size_bytes` long; `text` is its start."""

    text: str
    times: int
    size_bytes: int


class Details:
    """A HeapReader that keeps the records of `wanted` objects and counts collections and strings.

    `records` gives the heap record of a wanted object by its number, of long arrays the first MiB.
    """

    def __init__(
        self, arrays: Arrays, index: ObjectIndex, classes: Classes, elements_of: Array, reachable: Array, *,
        wanted: set[int], is_text: Array | None,
    ) -> None:  # fmt: skip
        self._index, self._classes = index, classes
        self._elements_of, self._reachable = elements_of, reachable
        self._wanted = arrays.zeros((index.count >> 3) + 1, np.uint8)
        for number in wanted:
            self._wanted[number >> 3] |= 1 << (number & 7)
        self._is_text = is_text if is_text is not None else np.zeros(1, np.uint8)
        slots = _TABLE_SLOTS if is_text is not None else 0
        self._table, self._texts = np.zeros((slots, 4), np.int64), np.zeros((slots, TEXT_BYTES), np.uint8)
        self._rows, self._kept = np.zeros((1024, 3), np.int64), np.zeros(4 << 20, np.uint8)
        self.collections = _collection_fields(classes)
        self.stats = np.zeros((classes.count, 4), np.int64)
        self.largest = np.zeros((LARGEST, 2), np.int64)
        self._state = np.zeros(7, np.int64)
        self.records: dict[int, bytes] = {}

    def read(self, content: Array, position: int, end: int) -> int:
        index, classes = self._index, self._classes
        while True:
            position = int(
                _read(
                    content, position, end, classes.id_size, index.shift, self._state, (index.pages, index.words),
                    *classes.slots, self._wanted, self._is_text, self._reachable, self._rows, self._kept,
                    self.collections, self._elements_of, self.stats, self.largest, self._table, self._texts,
                )
            )  # fmt: skip
            status = self._state[_STATUS]
            if status == _READ:
                return position
            if status == _BAD:
                raise DamagedSegment("something that no heap has stands in a heap segment")
            if status == _GROW:
                self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
                self._kept = np.concatenate([self._kept, np.zeros_like(self._kept)])
            else:
                self._state[_FORGOTTEN] += 1
                self._table, self._texts, left = forget(
                    self._table, self._texts, int(self._state[_FORGOTTEN])
                )
                self._state[_STRINGS] = left

    @property
    def between_records(self) -> bool:
        return bool(self._state[_SKIP] == 0)

    def finish(self) -> None:
        """Sort out what was kept."""
        for number, start, length in self._rows[: self._state[_KEPT]].tolist():
            self.records[number] = self._kept[start : start + length].tobytes()

    @property
    def forgotten(self) -> int:
        """Give by how much the counts of strings can be too small."""
        return int(self._state[_FORGOTTEN])

    def repeated(self, most: int) -> list[RepeatedText]:
        """Give the `most` texts that cost most by being there several times."""
        rows = np.flatnonzero(self._table[:, 1] > 1)
        waste = (self._table[rows, 1] - 1) * (self._table[rows, 2] + 40)
        chosen = rows[np.argsort(-waste, kind="stable")[:most]]
        return [
            RepeatedText(
                text_from(
                    self._texts[at, : min(TEXT_BYTES, int(self._table[at, 2]))].tobytes(),
                    int(self._table[at, 3]),
                ),
                int(self._table[at, 1]),
                int(self._table[at, 2]),
            )
            for at in chosen.tolist()
        ]


def text_from(content: bytes, kind: int) -> str:
    """Give the text of an array of chars (5) or of bytes; these are Latin-1, or UTF-16 in the machine's order."""
    if kind == 5:
        return content.decode("utf-16-be", "replace")
    even, odd = content[0::2], content[1::2]
    if len(content) % 2 == 0 and content and (not any(even) or not any(odd)) and any(content):
        return content.decode("utf-16-le" if not any(odd) else "utf-16-be", "replace")
    return content.decode("latin-1")


_SIZE_FIELDS = ("size", "elementCount", "baseCount", "count")
_TABLE_FIELDS = ("table", "elementData", "elements", "array", "queue", "items")


def _collection_fields(classes: Classes) -> Array:
    """Give, by class, where the size of a collection stands (-1: it is none), its width, where its array stands."""
    found = np.full((classes.count, 3), -1, np.int64)
    collections = np.zeros(classes.count, bool)
    for name in ("java.util.AbstractCollection", "java.util.AbstractMap", "java.util.Dictionary"):
        collections |= classes.descending_from(name)
    for number in range(classes.count):
        if classes.kinds[number] != INSTANCE_KIND:
            continue
        known = collections[number] or classes.names[number].endswith(_COLLECTION_NAMES)
        if not known:
            continue
        fields = {each.name: each for each in reversed(classes.fields_of(number))}
        size = next(
            (fields[name] for name in _SIZE_FIELDS if name in fields and fields[name].kind in (10, 11)), None
        )
        if size is None:
            continue
        room = next(
            (fields[name] for name in _TABLE_FIELDS if name in fields and fields[name].kind == 2), None
        )
        found[number] = size.offset, 8 if size.kind == 11 else 4, room.offset if room else -1
    return found


_COLLECTION_NAMES = ("Map", "List", "Set", "Queue", "Deque", "Vector", "Table", "Cache")
