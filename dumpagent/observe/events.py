"""Every event the agent can tell of: its name in the log, its level, and what it means to the person reading it.

Names are past tense. Fields are the same everywhere: path, key, size_bytes, seconds, error, hint, reason, ...
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that can happen. `level` is debug, info, warning or error; `meaning` stands in the docs."""

    name: str
    level: str
    meaning: str


class Tell(Protocol):
    """Tells everybody who listens that `event` happened, with its fields. Never raises, never waits for a listener."""

    def __call__(self, event: Event, /, **fields: object) -> None: ...


CATALOGUE: dict[str, Event] = {}


def _event(name: str, level: str, meaning: str) -> Event:
    CATALOGUE[name] = event = Event(name, level, meaning)
    return event


# Both daemons
AGENT_STARTED = _event("agent_started", "info", "The daemon runs; its settings stand beside it.")
AGENT_STOPPED = _event("agent_stopped", "info", "The daemon ended in good order after SIGTERM or SIGINT.")
