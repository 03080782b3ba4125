"""The list of tests that fail now and then: each with its reason, and with a day after which it fails CI."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Flaky:
    """A listed test: its id, the last day on which it may fail, and why it does."""

    test: str
    until: dt.date
    reason: str


def parse(text: str) -> list[Flaky]:
    """Give the tests that a list names. Raises ValueError for a line that is not `test id | YYYY-MM-DD | reason`."""
    found = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words = [word.strip() for word in line.split("|")]
        if len(words) != 3 or not all(words):
            raise ValueError(f"not `test id | YYYY-MM-DD | reason`: {line}")
        found.append(Flaky(words[0], dt.date.fromisoformat(words[1]), words[2]))
    return found


def over(listed: Collection[Flaky], today: dt.date) -> list[str]:
    """Give what may no longer be listed, as a person reads it."""
    return [f"{entry.test}: listed until {entry.until}, mend it" for entry in listed if today > entry.until]
