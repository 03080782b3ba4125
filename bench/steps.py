"""The steps of a run, taken in turn, with the time that the rest of them will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One thing to measure. `expected_s` is what it takes on a quiet machine with two cores."""

    name: str
    expected_s: float
    take: Callable[[], object]


def take_all(
    steps: Sequence[Step], say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic
) -> None:
    """Take every step; before each, say what it is and how long it and the rest take at the pace so far."""
    began = clock()
    done_s, left_s = 0.0, sum(step.expected_s for step in steps)
    for number, step in enumerate(steps, 1):
        pace = (clock() - began) / done_s if done_s else 1.0
        say(f"[{number}/{len(steps)}, about {left_s * pace / 60:.0f} min left] {step.name}")
        step.take()
        done_s += step.expected_s
        left_s -= step.expected_s
