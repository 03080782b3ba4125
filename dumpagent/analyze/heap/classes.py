"""The classes of a heap: names, superclasses, fields, statics, and where in an object its references lie."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dumpagent.analyze.heap.elements import read_id, width_of
from dumpagent.analyze.heap.names import HeapNames
from dumpagent.analyze.native import Array, compiled, int64
from dumpagent.hprof.facts import java_name
from dumpagent.hprof.records import OBJECT_TYPE

_DEEPEST_INHERITANCE = 1000
# Basic types: the letter in the name of an array's class -> code. Source: hprof_b_spec.h; JVM specification 4.3.2.
_LETTERS = {"Z": 4, "C": 5, "F": 6, "D": 7, "B": 8, "S": 9, "I": 10, "J": 11}
_WIDTHS = {4: 1, 5: 2, 6: 4, 7: 8, 8: 1, 9: 2, 10: 4, 11: 8}
INSTANCE_KIND, REFERENCES_KIND, VALUES_KIND = range(3)


@compiled
def _parse(
    content: Array,
    id_size: int,
    heads: Array,
    fields: Array,
    statics: Array,
    field_starts: Array,
    static_starts: Array,
) -> None:
    """Take class records apart, which a scan has found to be whole."""
    at, number, field_count, static_count = 0, 0, 0, 0
    while at < len(content):
        heads[number, 0] = read_id(content, at + 1, id_size)
        for each in range(4):  # superclass, loader, signers, protection domain
            heads[number, 1 + each] = read_id(content, at + 5 + (1 + each) * id_size, id_size)
        at += 9 + 7 * id_size
        count = int64(content[at]) << 8 | int64(content[at + 1])
        at += 2
        for _ in range(count):
            at += 3 + width_of(int64(content[at + 2]), id_size)
        count = int64(content[at]) << 8 | int64(content[at + 1])
        at += 2
        static_starts[number] = static_count
        for _ in range(count):
            kind = int64(content[at + id_size])
            statics[static_count, 0] = read_id(content, at, id_size)
            statics[static_count, 1] = kind
            statics[static_count, 2] = read_id(content, at + id_size + 1, id_size) if kind == 2 else 0
            static_count += 1
            at += id_size + 1 + width_of(kind, id_size)
        count = int64(content[at]) << 8 | int64(content[at + 1])
        at += 2
        field_starts[number] = field_count
        for _ in range(count):
            fields[field_count, 0] = read_id(content, at, id_size)
            fields[field_count, 1] = int64(content[at + id_size])
            field_count += 1
            at += id_size + 1
        number += 1
    field_starts[number] = field_count
    static_starts[number] = static_count


@compiled
def _count_members(content: Array, id_size: int) -> tuple[int, int]:
    at, field_count, static_count = 0, 0, 0
    while at < len(content):
        at += 9 + 7 * id_size
        count = int64(content[at]) << 8 | int64(content[at + 1])
        at += 2
        for _ in range(count):
            at += 3 + width_of(int64(content[at + 2]), id_size)
        count = int64(content[at]) << 8 | int64(content[at + 1])
        at += 2
        static_count += count
        for _ in range(count):
            at += id_size + 1 + width_of(int64(content[at + id_size]), id_size)
        count = int64(content[at]) << 8 | int64(content[at + 1])
        at += 2 + count * (id_size + 1)
        field_count += count
    return field_count, static_count


@dataclass(frozen=True, slots=True)
class Field:
    """A field of an object: the class that declares it, its name, its basic type, where in the values it begins."""

    declared_by: int
    name: str
    kind: int
    offset: int


@dataclass(slots=True)
class Classes:
    """All classes, numbered from 0; behind those of the dump come made-up ones for arrays whose class is missing.

    Per class: `ids` (0: made up), `supers`, `loaders` (identifiers), `kinds`, `widths` (bytes of an array's element).
    `reference_starts` and `reference_offsets` say where in an object's values its references lie that keep something
    alive: a weak or phantom reference's `referent` is none of them.
    """

    id_size: int
    count: int
    unknown: int
    ids: Array
    supers: Array
    heads: Array
    names: list[str]
    kinds: Array
    widths: Array
    data_bytes: Array
    references: Array  # how many fields are references, all of them
    reference_starts: Array
    reference_offsets: Array
    fields: Array
    field_starts: Array
    statics: Array
    static_starts: Array
    primitive: dict[int, int]
    texts: HeapNames
    slots: tuple[Array, Array]
    by_name: dict[str, int] = field(default_factory=dict)
    _descend: dict[str, Array] = field(default_factory=dict)

    def descending_from(self, name: str) -> Array:
        """Give, for each class, whether it is the class of this name or a subclass of it."""
        if name not in self._descend:
            root = self.by_name.get(name, -1)
            found = np.zeros(self.count, bool)
            if root >= 0:
                current = np.arange(self.count)
                for _ in range(_DEEPEST_INHERITANCE):
                    found |= current == root
                    current = np.where(current >= 0, self.supers[current], -1)
                    if not (current >= 0).any():
                        break
            self._descend[name] = found
        return self._descend[name]

    def fields_of(self, number: int) -> list[Field]:
        """Give the fields of an object of this class, in the order of their values."""
        found, offset, each = list[Field](), 0, number
        for _ in range(_DEEPEST_INHERITANCE):
            if each < 0:
                break
            for at in range(self.field_starts[each], self.field_starts[each + 1]):
                name_id, kind = int(self.fields[at, 0]), int(self.fields[at, 1])
                found.append(Field(each, self.texts.text(name_id), kind, offset))
                offset += self.id_size if kind == OBJECT_TYPE else _WIDTHS.get(kind, 1)
            each = int(self.supers[each])
        return found

    def field(self, number: int, *names: str) -> Field | None:
        """Give the first field with one of these names, if an object of the class has one."""
        for wanted in names:
            for each in self.fields_of(number):
                if each.name == wanted:
                    return each
        return None

    def statics_of(self, number: int) -> list[tuple[str, int]]:
        """Give name and identifier of the statics of the class that are references."""
        return [
            (self.texts.text(int(name_id)), int(value))
            for name_id, kind, value in self.statics[
                self.static_starts[number] : self.static_starts[number + 1]
            ]
            if kind == OBJECT_TYPE
        ]


def read_classes(
    records: Array, count: int, id_size: int, name_ids: dict[int, int], texts: HeapNames
) -> Classes:
    """Take the class records of a scan apart; `name_ids` gives the identifier of a class's name by that of the class."""
    field_count, static_count = _count_members(records, id_size)
    heads = np.zeros((count, 5), np.int64)
    fields, statics = np.zeros((field_count, 2), np.int64), np.zeros((static_count, 3), np.int64)
    field_starts, static_starts = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    _parse(records, id_size, heads, fields, statics, field_starts, static_starts)
    names = [_name(texts, name_ids.get(int(class_id), 0), int(class_id)) for class_id in heads[:, 0]]
    primitive, made_up = dict[int, int](), list[str]()
    known = {name: number for number, name in reversed(list(enumerate(names)))}
    for letter, kind in _LETTERS.items():
        name = java_name(f"[{letter}")
        primitive[kind] = known.get(name, count + len(made_up))
        if name not in known:
            made_up.append(name)
    unknown = count + len(made_up)
    names += [*made_up, "(class missing in the dump)"]
    total = len(names)
    heads = np.concatenate([heads, np.zeros((total - count, 5), np.int64)])
    field_starts = np.concatenate([field_starts, np.full(total - count, field_count)])
    static_starts = np.concatenate([static_starts, np.full(total - count, static_count)])
    slots = _hash(heads[:count, 0])
    supers = _lookup_all(slots, heads[:, 1])
    kinds = np.array([_kind(name) for name in names], np.int8)
    widths = np.zeros(total, np.int64)
    widths[kinds == REFERENCES_KIND] = id_size
    for kind, number in primitive.items():
        widths[number] = _WIDTHS[kind]
    classes = Classes(
        id_size=id_size, count=total, unknown=unknown, ids=heads[:, 0], supers=supers, heads=heads, names=names, kinds=kinds,
        widths=widths, data_bytes=np.zeros(total, np.int64), references=np.zeros(total, np.int64),
        reference_starts=np.zeros(total + 1, np.int64), reference_offsets=np.zeros(0, np.int64),
        fields=fields, field_starts=field_starts, statics=statics, static_starts=static_starts, primitive=primitive,
        texts=texts, slots=slots, by_name={name: number for number, name in reversed(list(enumerate(names)))},
    )  # fmt: skip
    _lay_out(classes)
    return classes


def _name(texts: HeapNames, name_id: int, class_id: int) -> str:
    raw = texts.raw(name_id)
    return java_name(texts.text(name_id)) if raw is not None else f"(unnamed class {class_id:#x})"


def _kind(name: str) -> int:
    if not name.endswith("[]"):
        return INSTANCE_KIND
    return VALUES_KIND if name[:-2] in _PRIMITIVE_NAMES else REFERENCES_KIND


_PRIMITIVE_NAMES = frozenset(java_name(f"[{letter}")[:-2] for letter in _LETTERS)


def _lay_out(classes: Classes) -> None:
    """Find where in an object's values its references lie, for all classes."""
    offsets, starts = list[int](), [0]
    weak = classes.descending_from("java.lang.ref.WeakReference") | classes.descending_from(
        "java.lang.ref.PhantomReference"
    )
    reference = classes.by_name.get("java.lang.ref.Reference", -1)
    own = _own_layouts(classes)
    for number in range(classes.count):
        offset, each = 0, number
        for _ in range(_DEEPEST_INHERITANCE):
            if each < 0:
                break
            places, own_bytes = own[each]
            classes.references[number] += len(places)
            for place, name_id in places:
                left_out = weak[number] and each == reference and classes.texts.text(name_id) == "referent"
                if not left_out:
                    offsets.append(offset + place)
            offset += own_bytes
            each = int(classes.supers[each])
        classes.data_bytes[number] = offset
        starts.append(len(offsets))
    classes.reference_starts[:] = starts
    classes.reference_offsets = np.array(offsets, np.int64)


def _own_layouts(classes: Classes) -> list[tuple[list[tuple[int, int]], int]]:
    """Give, for each class, its own references (place, name) and the bytes of its own fields."""
    found = []
    for number in range(classes.count):
        places, offset = list[tuple[int, int]](), 0
        for name_id, kind in classes.fields[
            classes.field_starts[number] : classes.field_starts[number + 1]
        ].tolist():
            if kind == OBJECT_TYPE:
                places.append((offset, name_id))
            offset += classes.id_size if kind == OBJECT_TYPE else _WIDTHS.get(kind, 1)
        found.append((places, offset))
    return found


# -- a table from identifiers to numbers -------------------------------------------------------------------------------


@compiled
def _fill(keys: Array, values: Array, ids: Array) -> None:
    for number in range(len(ids)):
        at = slot_of(ids[number], len(keys))
        while keys[at] != 0 and keys[at] != ids[number]:
            at = (at + 1) & (len(keys) - 1)
        if keys[at] == 0:
            keys[at] = ids[number]
            values[at] = number


@compiled
def slot_of(key: int, size: int) -> int:
    """Give where in a table of `size` (a power of 2) the search for `key` begins."""
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    return int64(mixed >> np.uint64(20)) & (size - 1)


@compiled
def lookup(keys: Array, values: Array, key: int) -> int:
    """Give the number of the class with this identifier, -1 if there is none."""
    at = slot_of(key, len(keys))
    while keys[at] != 0:
        if keys[at] == key:
            return int64(values[at])
        at = (at + 1) & (len(keys) - 1)
    return -1


@compiled
def _lookups(keys: Array, values: Array, wanted: Array, out: Array) -> None:
    for at in range(len(wanted)):
        out[at] = lookup(keys, values, wanted[at])


def _hash(ids: Array) -> tuple[Array, Array]:
    size = 1 << max(6, int(4 * len(ids)).bit_length())
    keys, values = np.zeros(size, np.int64), np.full(size, -1, np.int32)
    _fill(keys, values, np.ascontiguousarray(ids))
    return keys, values


def _lookup_all(slots: tuple[Array, Array], wanted: Array) -> Array:
    out = np.full(len(wanted), -1, np.int64)
    _lookups(slots[0], slots[1], np.ascontiguousarray(wanted), out)
    return out
