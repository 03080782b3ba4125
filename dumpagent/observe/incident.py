"""Lasting failures told at a sane rate: at once, then seldom, with their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from dumpagent.observe.events import Failure, Recovery, Tell

F = TypeVar("F", bound=Failure)
R = TypeVar("R", bound=Recovery)


@dataclass
class _Open:
    since: float
    told: float
    times: int = 1


@dataclass
class Incident(Generic[F, R]):
    """One kind of lasting failure, by its subject (a path, a store, ...).

    The first failure is told at once; while it goes on, once every `every_s` with how often and how long; then its
    end. A failure whose `reason`, which is its `error` unless said otherwise, differs from those before is told at once
    again.
    """

    tell: Tell
    began: type[F]
    ended: type[R]
    every_s: float = 600.0
    monotonic: Callable[[], float] = time.monotonic
    reason: Callable[[F], str] = lambda event: event.error
    _open: dict[Hashable, dict[str, _Open]] = field(default_factory=dict)

    def failed(self, subject: Hashable, event: F) -> None:
        """Note that `event` happened to `subject`, and tell of it if it is time to."""
        now = self.monotonic()
        errors = self._open.setdefault(subject, {})
        reason = self.reason(event)
        known = errors.get(reason)
        if known is None:
            errors[reason] = _Open(now, now)
            self.tell(event)
            return
        known.times += 1
        if now - known.told >= self.every_s:
            known.told = now
            self.tell(event.with_values(times=known.times, seconds=now - known.since))

    def ended_for(self, subject: Hashable, event: R) -> bool:
        """Note that `subject` is well; tell `event` if it was not. Says whether it was not."""
        errors = self._open.pop(subject, None)
        if not errors:
            return False
        seconds = self.monotonic() - min(entry.since for entry in errors.values())
        self.tell(event.with_values(seconds=seconds, times=sum(entry.times for entry in errors.values())))
        return True

    def forget(self, subject: Hashable) -> None:
        """Drop what is known of `subject` without a word: it is gone."""
        self._open.pop(subject, None)
