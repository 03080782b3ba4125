"""Ways from a root to an object: what refers to what, by which field, as far as records of the objects are at hand."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dumpagent.analyze.graph.walk import SOURCE, UNSEEN
from dumpagent.analyze.heap.classes import INSTANCE_KIND
from dumpagent.analyze.native import Array, compiled, int64
from dumpagent.analyze.opened import Opened
from dumpagent.hprof.records import OBJECT_ARRAY

_LOWER_END, _UPPER_END = 48, 8  # what is noted of a way
_JDK = re.compile(r"^(java|javax|jdk|sun|com\.sun)\.")
_THREAD_LOCAL_ENTRY = "java.lang.ThreadLocal$ThreadLocalMap$Entry"
CLASS_VALUE_ENTRY = "java.lang.ClassValue$Entry"
UNKNOWN = "..."  # a field that is not known, or several references that are left out
STATIC, FIELD, ELEMENT, LOCAL = "static", "field", "element", "local"


@dataclass(frozen=True, slots=True)
class Hop:
    """One reference: from the object `holder` by `label` (of this `kind`) to `target`; numbers of objects.

    `name` is the class of the holder, or the class that a static belongs to. `declared_by` is the class whose field it
    is. `thread_local` says which ThreadLocal an entry of a thread's map is of; `leads_on`: to another of the same class.
    """

    holder: int
    name: str
    kind: str
    label: str
    target: int
    declared_by: str
    thread_local: str = ""
    leads_on: bool = False

    @property
    def is_application(self) -> bool:
        """Whether code outside the JDK holds the reference."""
        return self.is_named and not _JDK.match(self.declared_by)

    @property
    def is_named(self) -> bool:
        """Whether it is a static or field that says who holds something: not one that leads on in a list."""
        return self.kind in (STATIC, FIELD) and self.label != UNKNOWN and not self.leads_on


def is_jdk(name: str) -> bool:
    """Say whether a class belongs to the JDK."""
    return bool(_JDK.match(name)) or name.split("[")[0] in _PRIMITIVES


_PRIMITIVES = frozenset(["boolean", "char", "float", "double", "byte", "short", "int", "long"])


@compiled
def _climb(
    came_from: Array,
    class_of: Array,
    number: int,
    starts: Array,
    thread_classes: Array,
    way: Array,
    last: Array,
) -> tuple[int, int]:
    """Walk up from `number`; note the first objects in `way`, the last ones in `last`, going round in it.

    Of a row of objects of one class, as in a linked list, only its ends are noted. Gives how many of each were noted.
    """
    count, more = 1, 0
    way[0] = number
    here, first = number, True
    while first or not (starts[here >> 3] >> (here & 7) & 1 or thread_classes[class_of[here]]):
        first = False
        above = int64(came_from[here])
        if above >= 0xFFFFFFFE:
            break
        further = int64(came_from[above])
        inside = (
            class_of[above] == class_of[here] and further < 0xFFFFFFFE and class_of[further] == class_of[here]
        )
        if not inside:
            if count < len(way):
                way[count] = above
                count += 1
            else:
                last[more % len(last)] = above
                more += 1
        here = above
    return count, more


class Ways:
    """Gives the ways to objects, each from a class, a thread or another root; long ones without their middle."""

    def __init__(
        self, came_from: Array, class_of: Array, starts: Iterable[int], thread_classes: Array
    ) -> None:
        self._came_from, self._class_of, self._thread_classes = came_from, class_of, thread_classes
        self._starts = np.zeros((len(came_from) >> 3) + 1, np.uint8)
        for each in starts:
            self._starts[each >> 3] |= 1 << (each & 7)

    def to(self, number: int) -> list[int]:
        """Give the objects on the way to `number`, which is the last of them."""
        way, last = np.zeros(_LOWER_END, np.int64), np.zeros(_UPPER_END, np.int64)
        count, more = _climb(
            self._came_from, self._class_of, number, self._starts, self._thread_classes, way, last
        )
        upper = last[:more] if more <= _UPPER_END else np.roll(last, -(more % _UPPER_END))
        found: list[int] = [*way[:count].tolist(), *upper.tolist()]
        return found[::-1]


class Labels:
    """Names the references between objects."""

    def __init__(
        self, opened: Opened, records: dict[int, bytes], thread_names: dict[int, str], came_from: Array
    ) -> None:
        self._opened, self._records, self._threads, self._came_from = opened, records, thread_names, came_from
        self._class_of_object = {
            int(number): each for each, number in enumerate(opened.class_numbers) if number >= 0
        }
        self._local_of = {(each.thread, each.number): each for each in reversed(opened.locals)}

    def class_object(self, number: int) -> str | None:
        """Give the name of the class whose object this is; None if it is no class."""
        each = self._class_of_object.get(number)
        return None if each is None else self._opened.classes.names[each]

    def steps(self, way: list[int]) -> list[Hop]:
        """Give the references along a way."""
        return [self.step(holder, target) for holder, target in pairwise(way)]

    def step(self, holder: int, target: int) -> Hop:
        """Give the reference from `holder` to `target`."""
        opened, classes = self._opened, self._opened.classes
        name = opened.class_name(holder)
        each = self._class_of_object.get(holder)
        if each is not None:
            name = classes.names[each]
            return Hop(holder, name, STATIC, self._static(each, target), target, name)
        local = self._local_of.get((holder, target))
        record = self._records.get(holder)
        if record is None:
            if local is not None:
                return Hop(holder, name, LOCAL, self._frame(local.thread_serial, local.frame), target, name)
            return Hop(holder, name, ELEMENT if name.endswith("[]") else FIELD, UNKNOWN, target, name)
        if record[0] == OBJECT_ARRAY:
            return Hop(holder, name, ELEMENT, self._element(record, target), target, name)
        found = self._field(record, opened.class_of(holder), target)
        if found is None and local is not None:
            return Hop(holder, name, LOCAL, self._frame(local.thread_serial, local.frame), target, name)
        label, declared_by = found or (UNKNOWN, name)
        keyed = label == "value" and name in (_THREAD_LOCAL_ENTRY, CLASS_VALUE_ENTRY)
        key = self._key_of(holder) if keyed else ""
        leads_on = opened.class_of(holder) == opened.class_of(target)
        return Hop(holder, name, FIELD, label, target, declared_by, key, leads_on)

    def _static(self, each: int, target: int) -> str:
        opened = self._opened
        for label, value in opened.classes.statics_of(each):
            if value and int(opened.index.numbers(_ids(value))[0]) == target:
                return label
        head = opened.classes.heads[each]
        for label, value in (("<loader>", head[2]), ("<signers>", head[3]), ("<protection domain>", head[4])):
            if value and int(opened.index.numbers(_ids(value))[0]) == target:
                return label
        return "<superclass>"

    def _element(self, record: bytes, target: int) -> str:
        size, wanted = self._opened.header.id_size, self._opened.index.id_of(target)
        body = record[9 + 2 * size :]
        at = body.find(wanted.to_bytes(size, "big"))
        while at % size and at >= 0:
            at = body.find(wanted.to_bytes(size, "big"), at + 1)
        return f"[{at // size}]" if at >= 0 else "[...]"

    def _field(self, record: bytes, class_number: int, target: int) -> tuple[str, str] | None:
        size, wanted = self._opened.header.id_size, self._opened.index.id_of(target)
        values = record[9 + 2 * size :]
        for each in self._opened.classes.fields_of(class_number):
            if each.kind == 2 and int.from_bytes(values[each.offset : each.offset + size], "big") == wanted:
                return each.name, self._opened.classes.names[each.declared_by]
        class_object = int(self._opened.class_numbers[class_number])
        return ("<class>", self._opened.classes.names[class_number]) if class_object == target else None

    def value(self, number: int, *names: str) -> int | None:
        """Give the number of the object in the first of these fields; None if that is not known, or null."""
        record = self._records.get(number)
        opened = self._opened
        if record is None or opened.classes.kinds[opened.class_of(number)] != INSTANCE_KIND:
            return None
        each = opened.classes.field(opened.class_of(number), *names)
        if each is None:
            return None
        size = opened.header.id_size
        start = 9 + 2 * size + each.offset
        found = int(opened.index.numbers(_ids(int.from_bytes(record[start : start + size], "big")))[0])
        return found if found >= 0 else None

    def _key_of(self, entry: int) -> str:
        """Name the ThreadLocal or ClassValue that is the key of an entry: the static that holds it."""
        key = self.value(entry, "referent")
        if key is None:
            return "that is gone"
        if self._opened.class_name(entry) == CLASS_VALUE_ENTRY:
            key = self._of_version(key)
        holder = int(self._came_from[key])
        if holder in (SOURCE, UNSEEN):
            return f"a {self._opened.class_name(key)}"
        name = self.class_object(holder)
        if name is not None:
            return f"{name}.{self._static(self._class_of_object[holder], key)}"
        return f"a {self._opened.class_name(key)} held by {self._opened.class_name(holder)}"

    def _of_version(self, version: int) -> int:
        """Give the ClassValue whose version is the key of an entry; the version itself if that is not known."""
        holder = int(self._came_from[version])
        return version if holder in (SOURCE, UNSEEN) else holder

    def _frame(self, serial: int, frame: int) -> str:
        frames = self._opened.stacks.of_thread(serial, self._opened.classes.texts)
        return frames[frame] if 0 <= frame < len(frames) else ""

    def thread_name(self, number: int) -> str | None:
        """Give the name of the thread whose object this is."""
        return self._threads.get(number)


def _ids(value: int) -> Array:
    return np.array([value if value < 1 << 63 else 0], np.int64)
