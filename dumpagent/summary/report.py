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
    """A part of the memory, from `least` to `most` percent with 95 % confidence: it was estimated from samples."""

    percent: int
    least: int
    most: int


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
    """All of it. `surveyed_percent` of the heap were read before the budget of CPU seconds ended the work."""

    complete: bool
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
        return "memory" if not self.out_of_time else f"{self.surveyed_percent} % of the dump that were read"

    def _held_by(self) -> str:
        if self.owner is None:
            return "not found" + (" within the budget of CPU time" if self.out_of_time else "")
        share = self.owner.share
        return (
            f"most likely {self.owner.name}, about {share.percent} % of the {self._read()}"
            f" (between {share.least} and {share.most} %), mostly {self.owner.objects}"
        )


def share_of(some: int, of: int) -> Share:
    """Give `some` of `of` samples as a share with its bounds (Wilson's interval). Source: Wilson, 1927."""
    if not of:
        return Share(0, 0, 100)
    part, square = some / of, _NORMAL * _NORMAL
    middle = (part + square / (2 * of)) / (1 + square / of)
    half = _NORMAL * math.sqrt(part * (1 - part) / of + square / (4 * of * of)) / (1 + square / of)
    return Share(
        round(100 * part),
        max(0, math.floor(100 * (middle - half))),
        min(100, math.ceil(100 * (middle + half))),
    )
