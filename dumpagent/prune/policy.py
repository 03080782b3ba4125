"""Which stored dumps may be deleted; pure."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

_DAY_S = 86400.0
_Dump = TypeVar("_Dump", bound=Hashable)


class Why(enum.Enum):
    """Why a dump stays, or goes; the text is for a person."""

    FIRST = "the first of its workload"
    LAST = "one of the last of its workload"
    LARGEST = "one of the largest of its workload"
    YOUNG = "younger than PRUNE_KEEP_DAYS"
    GOES = "older than PRUNE_KEEP_DAYS, with a first, last and largest kept"


@dataclass(frozen=True, slots=True)
class Rules:
    """How many dumps of each workload stay, whatever their age; `keep_days`: what is younger stays in any case."""

    keep_last: int = 3
    keep_largest: int = 1
    keep_days: float = 30.0


@dataclass(frozen=True, slots=True)
class Prunable(Generic[_Dump]):
    """One dump as the rules see it. `workload` is whatever tells two applications apart; `when` is in seconds since
    the epoch, `size_bytes` that of the uncompressed dump.
    """

    dump: _Dump
    workload: Hashable
    when: float
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Decision(Generic[_Dump]):
    """What becomes of one dump."""

    candidate: Prunable[_Dump]
    why: Why

    @property
    def goes(self) -> bool:
        return self.why is Why.GOES


def decide(candidates: Iterable[Prunable[_Dump]], rules: Rules, *, now: float) -> list[Decision[_Dump]]:
    """Decide about each dump. The first dump of a workload always stays, so its only one does too.

    A dump from a clock that was ahead counts as young.
    """
    by_workload: dict[Hashable, list[Prunable[_Dump]]] = {}
    for candidate in candidates:
        by_workload.setdefault(candidate.workload, []).append(candidate)
    return [
        Decision(candidate, _why(candidate, ordered, largest, rules, now))
        for ordered, largest in (_sorted(group, rules) for group in by_workload.values())
        for candidate in ordered
    ]


def _sorted(
    group: list[Prunable[_Dump]], rules: Rules
) -> tuple[list[Prunable[_Dump]], list[Prunable[_Dump]]]:
    ordered = sorted(group, key=lambda candidate: candidate.when)
    largest = sorted(ordered, key=lambda candidate: -candidate.size_bytes)[: rules.keep_largest]
    return ordered, largest


def _why(
    candidate: Prunable[_Dump],
    ordered: Sequence[Prunable[_Dump]],
    largest: Sequence[Prunable[_Dump]],
    rules: Rules,
    now: float,
) -> Why:
    if candidate is ordered[0]:
        return Why.FIRST
    if rules.keep_last and any(candidate is kept for kept in ordered[-rules.keep_last :]):
        return Why.LAST
    if any(candidate is kept for kept in largest):
        return Why.LARGEST
    if now - candidate.when < rules.keep_days * _DAY_S:
        return Why.YOUNG
    return Why.GOES
