"""Ways from samples of the heap up to what holds them, and what the finished ways say of those that broke off; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dumpagent.summary.references import HeapReference, HeldBy

_ALIKE_LEAST = 2


@dataclass(frozen=True, slots=True)
class Way:
    """The steps up from a sample of the class `of` (of a primitive array: its type).

    `ended` says that the whole heap was searched in vain for what holds the last object: it is garbage, most likely.
    """

    of: bytes
    steps: tuple[HeapReference, ...]
    ended: bool

    @property
    def is_open(self) -> bool:
        """Whether the way leads to no root: garbage, or its next step was not looked for or not found."""
        return not self.steps or self.steps[-1].kind in (HeldBy.FIELD, HeldBy.ELEMENT)

    @property
    def broke_off(self) -> bool:
        """Whether it would lead further if there were more time."""
        return self.is_open and not self.ended

    @property
    def end(self) -> bytes:
        """Give the class of the last object that was reached."""
        return self.steps[-1].class_id if self.steps else self.of


def inferred(ways: Sequence[Way], is_owners: Sequence[object]) -> float:
    """Give how many of the ways that broke off lead to the owner, most likely: as many as of the finished ones.

    The ways that passed an object of the class at which one broke off count, if there are some; else all. What lies far
    from its holder in the file is hardly found; whose it is does not depend on that.
    """
    finished = [
        (frozenset({way.of, *(step.class_id for step in way.steps)}), bool(owners))
        for way, owners in zip(ways, is_owners, strict=True)
        if owners or not way.broke_off
    ]
    total = 0.0
    for way, owners in zip(ways, is_owners, strict=True):
        if owners or not way.broke_off or not finished:
            continue
        alike = [owner for classes, owner in finished if way.end in classes]
        votes = alike if len(alike) >= _ALIKE_LEAST else [owner for _, owner in finished]
        total += sum(votes) / len(votes)
    return total
