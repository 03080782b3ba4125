"""Knows whether the store can be reached: tells when it cannot, when it can again, and how long to leave it alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.observe.events import Tell
from dumpagent.observe.events.store import StoreAnswered, StoreChecked, StoreFailed, StoreRecovered
from dumpagent.observe.incident import Incident
from dumpagent.store.protocol import LookRefused, Store

_STORE = "store"  # one trouble for all dumps
_RETRY_S = 30.0
_T = TypeVar("_T")


class StoreHealth:
    """What everybody who asks the store has to know of it. `monotonic` is the clock of the pause, seconds."""

    def __init__(self, store: Store, tell: Tell, *, monotonic: Callable[[], float]) -> None:
        self._store, self._tell, self._monotonic = store, tell, monotonic
        self._trouble = Incident(tell, StoreFailed, StoreRecovered, monotonic=monotonic, reason=_answer_in)
        self._greeted = False  # the store has answered before
        self._paused_until = 0.0

    def note(self, error: DumpagentError | None) -> None:
        """Take note of how the store answered a question that was not about a dump."""
        self._tell(StoreChecked(store=self._store.name, usable=error is None))
        if error:
            self._trouble.failed(
                _STORE, StoreFailed(error=str(error), store=self._store.name, hint=error.hint or None)
            )
            return
        recovered = self._trouble.ended_for(_STORE, StoreRecovered(store=self._store.name))
        if not recovered and not self._greeted:
            self._tell(StoreAnswered(store=self._store.name))
        self._greeted = True

    def failed(self, error: DumpagentError, *, pending: int) -> None:
        """Take note that a dump could not be stored for the store's own fault; `pending` dumps wait for it."""
        self._trouble.failed(
            _STORE,
            StoreFailed(error=str(error), store=self._store.name, hint=error.hint or None, pending=pending),
        )

    def has_stored(self) -> None:
        """Take note that a dump is stored: nothing is wrong with the store, and nobody need wait for it."""
        self._paused_until = 0.0
        self._trouble.ended_for(_STORE, StoreRecovered(store=self._store.name))

    def refuses_everybody(self) -> DumpagentError | None:
        """Ask the store whether it takes anything at all: give why not, None if it does or does not tell."""
        try:
            self._store.check()
        except LookRefused:
            return None  # may not list: says nothing about writing
        except (Refused, Unreachable) as error:
            return error
        return None

    def ask(self, question: Callable[[], _T]) -> _T | None:
        """Give the answer to a question that no upload waits for; None where the store is left alone now, or cannot answer.

        A store that cannot answer is left alone for half a minute.
        """
        if self.pause_left_s():
            return None
        try:
            return question()
        except Unreachable as error:
            self.leave_alone(_RETRY_S)
            self.note(error)
            return None

    def leave_alone(self, seconds: float) -> None:
        """Let nobody bother the store for so long, at least."""
        self._paused_until = max(self._paused_until, self._monotonic() + seconds)

    def pause_left_s(self) -> float:
        """Say for how long nobody may bother the store yet."""
        return max(0.0, self._paused_until - self._monotonic())


def _answer_in(failure: StoreFailed) -> str:
    """Give what the store answered, without what it was asked: one trouble, whoever meets it first."""
    return failure.error.rpartition(f"{failure.store}: ")[2]
