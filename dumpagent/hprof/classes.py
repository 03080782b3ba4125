"""The classes of a heap dump: their superclasses and the kinds of their fields, a million of them in some 50 MB."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

_CLASSES_MOST = 1_000_000
_SHAPES_MOST = 50_000
_DEEPEST_INHERITANCE = 1000
_SPREAD = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio, as Knuth's multiplicative hashing takes it
_MASK = (1 << 64) - 1
FURTHER = 0  # the number of all classes above _CLASSES_MOST


class FieldCounts(NamedTuple):
    """How many fields of each width a class declares; `references` take as many bytes as the JVM's layout says."""

    references: int = 0
    eights: int = 0
    fours: int = 0
    twos: int = 0
    ones: int = 0

    def bytes_with(self, reference_bytes: int) -> int:
        """Give what the fields take without any gap."""
        own = 8 * self.eights + 4 * self.fours + 2 * self.twos + self.ones
        return own + self.references * reference_bytes

    def plus(self, other: FieldCounts) -> FieldCounts:
        """Give the fields of both."""
        return FieldCounts(*(mine + its for mine, its in zip(self, other, strict=True)))


class ClassTable:
    """Gives each class identifier a small number, in the order in which they are met; 0 stands for all too many.

    A dict of a million classes takes 200 MB, this a quarter of it: open addressing in arrays.
    """

    def __init__(self, most: int = _CLASSES_MOST) -> None:
        self._most = most
        self._bits = 10
        self._slots = array("I", bytes(4 << self._bits))  # the number, 0: free
        self.ids = array("Q", [0])
        self._parents = array("I", [0])
        self._shapes = array("I", [0])
        self._known: list[FieldCounts] = [FieldCounts()]
        self._number_of_shape: dict[FieldCounts, int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, class_id: int) -> int | None:
        """Give the number of a class that was met."""
        return self._slots[self._slot(class_id)] or None

    def number(self, class_id: int) -> int:
        """Give the number of this class; one that was never met gets the next one."""
        slot = self._slot(class_id)
        number = self._slots[slot]
        if number or len(self.ids) > self._most:
            return number
        number = self._slots[slot] = len(self.ids)
        self.ids.append(class_id)
        self._parents.append(0)
        self._shapes.append(0)
        if len(self.ids) * 3 > 2 << self._bits:
            self._grow()
        return number

    def declare(self, class_id: int, parent_id: int, shape: FieldCounts) -> int:
        """Note what a CLASS DUMP says; give the class's number."""
        number = self.number(class_id)
        if number:
            self._parents[number] = self.number(parent_id) if parent_id else 0
            known = self._number_of_shape.get(shape)
            if known is None and len(self._known) < _SHAPES_MOST:
                known = self._number_of_shape[shape] = len(self._known)
                self._known.append(shape)
            self._shapes[number] = known or 0
        return number

    def lineage(self, number: int) -> Iterator[tuple[int, FieldCounts]]:
        """Give the class, its superclass and so on, each with the fields that it declares itself."""
        for _ in range(_DEEPEST_INHERITANCE):
            if not number:
                return
            yield number, self._known[self._shapes[number]]
            number = self._parents[number]

    def is_declared(self, number: int) -> bool:
        """Say whether the class's own CLASS DUMP was met and remembered."""
        return bool(self._shapes[number])

    def _slot(self, class_id: int) -> int:
        slots, ids, mask = self._slots, self.ids, (1 << self._bits) - 1
        slot = (class_id * _SPREAD & _MASK) >> (64 - self._bits)
        while (number := slots[slot]) and ids[number] != class_id:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        self._bits += 1
        self._slots = array("I", bytes(4 << self._bits))
        for number in range(1, len(self.ids)):
            self._slots[self._slot(self.ids[number])] = number
