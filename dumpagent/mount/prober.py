"""Has one write test at a time made by a forked child, and says when it hangs."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field

from dumpagent.kernel.forked import CRASHED, ForkedCall, Say
from dumpagent.mount.backend import Backend, Proof, prove


@dataclass
class Prober:
    """Asks whether writes reach the volume. `name` is this node's, `close` what the child must not keep open."""

    source: str
    target: str
    name: str
    hung_after_s: float
    close: Iterable[int] = ()
    overdue: bool = False
    _call: ForkedCall | None = None
    _said: list[dict[str, object]] = field(default_factory=list)

    @property
    def fd(self) -> int | None:
        """Give what to poll for an answer; None while nothing was asked."""
        return self._call.fd if self._call else None

    @property
    def deadline(self) -> float | None:
        """Give when to `collect` though nothing was said, monotonic seconds."""
        return self._call.started + self.hung_after_s if self._call and not self.overdue else None

    def start(self, *, through_target: bool, now: float) -> None:
        """Ask, if no question is open. Raises OSError when no process can be had."""
        if self._call is None:
            work = functools.partial(
                _say_proof, self.source, self.target if through_target else None, self.name
            )
            self._call = ForkedCall.start(work, now=now, close=self.close)
            self._said, self.overdue = [], False

    def collect(self, now: float) -> tuple[Proof, float] | None:
        """Give the answer and how long it took, in seconds; HUNG once, when it is overdue; else None.

        A hung child is neither killed nor waited for: its late answer is the first to tell that the volume is back.
        """
        if self._call is None:
            return None
        took_s = now - self._call.started
        self._said += self._call.read()
        if self._call.ended:
            self._call, self.overdue = None, False
            return self._answer(), took_s
        if took_s >= self.hung_after_s and not self.overdue:
            self.overdue = True
            return Proof(Backend.HUNG, "test", f"no answer for {took_s:.1f} s"), took_s
        return None

    def _answer(self) -> Proof:
        if not self._said:
            return Proof(Backend.UNKNOWN, "test", "the test was killed")
        if CRASHED in self._said[-1]:
            return Proof(Backend.UNKNOWN, "test", str(self._said[-1][CRASHED]))
        return Proof.from_line(self._said[-1])

    def abandon(self) -> None:
        """Forget the open question, since its answer would be about another volume, or we end."""
        if self._call is not None:
            self._call.abandon()
        self._call = None
        self.overdue = False


def _say_proof(source: str, target: str | None, name: str, say: Say) -> None:
    say(prove(source, target, name).as_line())
