"""The report on one dump: what is said of it, as values and as words."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from dumpagent.dumps.text import size_text
from dumpagent.hprof.histogram import ClassCount

VERSION = 1
_NORMAL = 1.96  # of a normal distribution 95 % lie within so many deviations


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the memory, from `least` to `most` percent with 95 % confidence: it was estimated from samples.

    Of `unknown` percent of the samples no holder was found. For `percent` they are taken to be held as the others are,
    unless they are garbage; `least` takes none of them to belong to it, `most` all.
    """

    percent: int
    least: int
    most: int
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class Holder:
    """What most likely holds most of the memory: `name` is class.field, or a thread's local variable.

    `chain` leads from there down to what fills the memory, as `class.field`.
    """

    name: str
    share: Share
    chain: tuple[str, ...]
    objects: str  # the class of what it mostly holds


@dataclass(frozen=True, slots=True)
class Collection:
    """An array with many elements, and the field that leads to it if that was found."""

    array: str
    elements: int
    held_by: str | None


@dataclass(frozen=True, slots=True)
class LoadedOften:
    """A class that many class loaders have loaded."""

    name: str
    loaders: int


@dataclass(frozen=True, slots=True)
class Report:
    """All of it. `surveyed_percent` of the dump were read before the budget of CPU seconds ended the work.

    `damage` says why the dump has no more: it was cut off, or its records are broken.
    """

    complete: bool
    damage: str | None
    surveyed_percent: int
    out_of_time: bool
    cpu_s: float
    objects: int
    shallow_bytes: int
    layout: str
    classes: tuple[ClassCount, ...]
    thread: str | None
    frames: tuple[str, ...]  # of the application's own code
    owner: Holder | None
    collections: tuple[Collection, ...]
    loaded_often: tuple[LoadedOften, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON takes it."""
        return {"version": VERSION, **asdict(self)}

    def lines(self) -> tuple[str, ...]:
        """Give three lines for a log, a message, an Event."""
        largest = ", ".join(f"{each.name} {size_text(each.shallow_bytes)}" for each in self.classes[:3])
        where = f" at {self.frames[0]}" if self.frames else ""
        return (
            f"held by: {self._held_by()}",
            f"largest classes: {largest or 'none were counted'}",
            f"out of memory in: {self.thread or 'a thread that was not found'}{where}"
            if self.thread is not None or self.frames
            else f"heap: {self.objects:,} objects, {size_text(self.shallow_bytes)}",
        )

    def _read(self) -> str:
        if self.surveyed_percent < 100:
            return f"{self.surveyed_percent} % of the dump that were read within the budget of CPU time"
        return "memory that the dump shows before it ends" if self.damage else "memory"

    def _held_by(self) -> str:
        if self.owner is None:
            return "not found" + (" within the budget of CPU time" if self.out_of_time else "")
        share = self.owner.share
        doubt = f"; no holder was found for {share.unknown} % of the samples" if share.unknown else ""
        ended = self.out_of_time and self.surveyed_percent == 100
        return (
            f"most likely {self.owner.name}, about {share.percent} % of the"
            f" {self._read()} (between {share.least} and {share.most} %{doubt}), mostly {self.owner.objects}"
            f"{'; the budget of CPU time ended the search' if ended else ''}"
        )


def share_of(some: int, of: int, *, unknown: int = 0, inferred: float = 0.0) -> Share:
    """Give `some` of `of` samples as a share with its bounds (Wilson's interval).

    `unknown` may belong to it or not; so many of them as `inferred` do, most likely.

    Source: Wilson, 1927.
    """
    if not of:
        return Share(0, 0, 100)
    least, most = _bounds(some, of)[0], _bounds(some + unknown, of)[1]
    return Share(
        percent=round(100 * (some + inferred) / of),
        least=max(0, math.floor(100 * least)),
        most=min(100, math.ceil(100 * most)),
        unknown=round(100 * unknown / of),
    )


def _bounds(some: int, of: int) -> tuple[float, float]:
    part, square = some / of, _NORMAL * _NORMAL
    middle = (part + square / (2 * of)) / (1 + square / of)
    half = _NORMAL * math.sqrt(part * (1 - part) / of + square / (4 * of * of)) / (1 + square / of)
    return middle - half, middle + half
