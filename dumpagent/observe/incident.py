"""Lasting troubles told at a sane rate: at once, then seldom, and their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from dumpagent.observe.events import Event, Tell


@dataclass
class _Open:
    since: float
    told: float
    times: int = 1


@dataclass
class Incident:
    """One kind of trouble, by what it befalls (a path, a store, ...).

    The first failure is told at once as `began`; while it goes on, once every `every_s` with how often and how long;
    its end as `ended`. A trouble that changes its text is told at once again.
    """

    tell: Tell
    began: Event
    ended: Event
    every_s: float = 600.0
    monotonic: Callable[[], float] = time.monotonic
    _open: dict[Hashable, dict[str, _Open]] = field(default_factory=dict)

    def failed(self, befallen: Hashable, error: str, **fields: object) -> None:
        """Note that it happened to `befallen`, and tell of it if it is time to."""
        now = self.monotonic()
        texts = self._open.setdefault(befallen, {})
        known = texts.get(error)
        if known is None:
            texts[error] = _Open(now, now)
            self.tell(self.began, error=error, **fields)
            return
        known.times += 1
        if now - known.told >= self.every_s:
            known.told = now
            self.tell(self.began, error=error, times=known.times, seconds=now - known.since, **fields)

    def ended_for(self, befallen: Hashable, **fields: object) -> bool:
        """Note that `befallen` is well; tell of it if it was not. Says whether it was not."""
        texts = self._open.pop(befallen, None)
        if not texts:
            return False
        now = self.monotonic()
        self.tell(
            self.ended,
            seconds=now - min(entry.since for entry in texts.values()),
            times=sum(entry.times for entry in texts.values()),
            **fields,
        )
        return True

    def forget(self, befallen: Hashable) -> None:
        """Drop what is known of `befallen` without a word: it is gone."""
        self._open.pop(befallen, None)
