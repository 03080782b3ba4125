"""The rules of mount mode: what is done about what was seen. Pure, so that every transition can be tested."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

from dumpagent.kernel.owned import MAPPED_HINT
from dumpagent.mount import hints
from dumpagent.mount.backend import Backend, Proof
from dumpagent.mount.state import (
    Action,
    Beat,
    BindFailed,
    Bound,
    Child,
    Cleared,
    ClearFailed,
    Do,
    Failing,
    Forked,
    ForkRefused,
    GiveUp,
    Happening,
    MountState,
    Over,
    Proved,
    RescueEnded,
    StartTest,
    TableNotRead,
    TableRead,
    TellEvent,
    Trouble,
    TurnEnds,
    WaitEnded,
)
from dumpagent.mount.table import Shows, View
from dumpagent.observe.events.mount import (
    MountAdopted,
    MountBound,
    MountLoss,
    MountLost,
    MountReadOnly,
    MountRestored,
    MountSeen,
    MountSetAside,
    MountStacked,
    MountUnshared,
    MountWrong,
    WriteProven,
    WriteTested,
)
from dumpagent.observe.events.volume import NameTaken, UsersMapped

LOST: dict[Shows, type[MountLoss]] = {
    Shows.NOTHING: MountLost,
    Shows.ANOTHER: MountWrong,
    Shows.STACKED: MountStacked,
    Shows.READ_ONLY: MountReadOnly,
}
# The volume answers: applications are better off with it than with the node's disk.
_FIT_TO_BIND = {Backend.WRITABLE, Backend.FULL, Backend.REFUSING, Backend.STALE_TARGET}
# Every write fails at once: applications are better off with the node's disk. A hung volume is not among them: who
# waits for it has lost nothing, and a JVM that merges its segment files by name must find them where it wrote them.
_SET_ASIDE = {Backend.DEAD, Backend.READ_ONLY}
_UNBIND = {*_SET_ASIDE, Backend.STALE_TARGET}
_STRIKES = 2  # a single error may pass; taking the volume away in the middle of a dump does not

Decision = tuple[MountState, list[Action]]


def decide(seen: Happening, state: MountState, now: float, *, source: str, target: str) -> Decision:
    """Give what is known after `seen`, and what to do about it, in order. `now` is monotonic seconds."""
    rules = _MountRules(source, target, now)
    match seen:
        case WaitEnded():
            return rules.woken(state, seen)
        case TableRead():
            return rules.table_read(state, seen.view)
        case TableNotRead():
            return rules.table_unreadable(state, seen.error)
        case Proved():
            return rules.proved(state, seen)
        case Bound():
            return rules.bound(state, seen.view)
        case BindFailed():
            return rules.bind_failed(state, seen)
        case Cleared():
            return rules.cleared(state, seen.layers)
        case ClearFailed():
            return state, [
                Failing(Trouble.REMOUNT, seen.error, fields={"path": target, "hint": hints.REMOUNT})
            ]
        case Forked():
            path = source if seen.child is Child.WRITE_TEST else target
            return state, [Over(Trouble.FORK, seen.child.value, fields={"path": path})]
        case ForkRefused():
            return rules.child_refused(state, seen)
        case RescueEnded():
            again_s = state.times.rescue_again_s if seen.waiting else state.times.tick_s
            return replace(state, rescue_at=min(state.rescue_at, now + again_s)), []
        case TurnEnds():
            return rules.turn_ends(state, seen)


def wake_at(state: MountState, *, testing: bool, rescuing: bool, overdue_at: float | None) -> float:
    """Give when there is something to do next if nothing comes; monotonic seconds."""
    times = [state.look_at, state.beat_at]
    if not testing:
        times.append(state.prove_at)
    elif overdue_at is not None:
        times.append(overdue_at)
    if state.ready and not testing and not rescuing:
        times.append(state.rescue_at)
    return min(times)


@dataclasses.dataclass(frozen=True, slots=True)
class _MountRules:
    source: str
    target: str
    now: float

    def woken(self, state: MountState, seen: WaitEnded) -> Decision:
        if seen.table_changed or self.now >= state.look_at:
            return replace(state, look_at=self.now + state.times.tick_s), [Do.READ_TABLE]
        return state, []

    def table_unreadable(self, state: MountState, error: str) -> Decision:
        # Unknown is not lost: a second bind on top of a good one would be our own doing.
        soon = replace(state, look_at=self.now + min(state.times.soon_s, state.times.tick_s))
        return soon, [Failing(Trouble.TABLE, error, fields={"path": self.target})]

    def table_read(self, state: MountState, view: View) -> Decision:
        actions: list[Action] = [Over(Trouble.TABLE, fields={"path": self.target})]
        if state.view is not None and state.view.identity != view.identity:
            # Another volume lies at the source: what is known is about the old one, which may never answer.
            actions += [Do.ABANDON_TEST, Do.ABANDON_RESCUE]
            state = replace(state, proof=None, aside=False, prove_at=self.now)
        if view.shows is not Shows.THE_SOURCE or state.view is None or state.view.layers != view.layers:
            state = replace(state, changes=state.changes + 1)
        state = replace(state, view=view)
        state, more = (
            self._whole(state, view) if view.shows is Shows.THE_SOURCE else self._repair(state, view)
        )
        return state, actions + more

    def _repair(self, state: MountState, view: View) -> Decision:
        """Make the target show the source, where that is better than what it shows."""
        if view.shows is Shows.READ_ONLY and view.source.file_system_read_only:
            state, told = self._broken(state, view)
            return replace(state, prove_at=min(state.prove_at, self.now)), told  # the write test decides
        if state.proof is None or state.proof.backend not in _FIT_TO_BIND or self.now < state.repair_at:
            return (state, []) if state.aside else self._broken(state, view)
        pace, wait_s = state.pace.take(self.now)
        state = replace(state, pace=pace)
        if wait_s:
            fields = {"path": self.target, "hint": hints.FOUGHT}
            failing = Failing(Trouble.REMOUNT, "somebody else undoes every mount", fields=fields)
            return self._again(state, wait_s), [failing]
        # Words come after the bind: until it stands, dumps go astray.
        return replace(state, broken_at=self.now), [Do.BIND]

    def bound(self, state: MountState, view: View) -> Decision:
        before, began_at = state.view, state.broken_at
        proof = replace(state.proof, through_target=False) if state.proof else None
        state = replace(
            state,
            view=view,
            changes=state.changes + 1,
            failures=0,
            aside=False,
            proof=proof,
            prove_at=self.now,
        )
        told: list[Action] = []
        if before is not None:
            state, told = self._broken(state, before, at=began_at)
        if view.shows is not Shows.THE_SOURCE:  # the source itself is mounted read-only: no bind changes that
            state, more = self._broken(state, view)
            return self._again(state, state.times.tick_s), told + more
        told.append(Over(Trouble.REMOUNT, fields={"path": self.target}))
        state, more = self._whole(state, view, bound=True)
        return state, told + more

    def bind_failed(self, state: MountState, seen: BindFailed) -> Decision:
        told: list[Action] = []
        if state.view is not None:
            state, told = self._broken(state, state.view)
        told.append(Failing(Trouble.REMOUNT, seen.error, fields={"path": self.target, "hint": seen.hint}))
        state = replace(state, failures=state.failures + 1)
        return self._again(
            state, min(state.times.longest_backoff_s, 0.05 * 2.0 ** min(state.failures, 30))
        ), told

    def _again(self, state: MountState, seconds: float) -> MountState:
        at = self.now + seconds
        return replace(state, repair_at=at, look_at=min(state.look_at, at))

    def _broken(self, state: MountState, view: View, *, at: float | None = None) -> Decision:
        if state.found is view.shows or (state.found is None and view.shows is Shows.NOTHING):
            return state, []  # told; or there was never a mount to lose
        if view.shows is Shows.THE_SOURCE:
            return state, []
        stack = [f"{mount.fstype} {mount.origin} {mount.device} {mount.root}" for mount in view.stack]
        fields = {"path": self.target, "stack": stack, "hint": hints.FINDINGS[view.shows]}
        state = replace(state, found=view.shows, found_at=self.now if at is None else at)
        return state, [TellEvent(LOST[view.shows], fields)]

    def _whole(self, state: MountState, view: View, *, bound: bool = False) -> Decision:
        before = state.found
        state = replace(state, found=Shows.THE_SOURCE, aside=False)
        if before is Shows.THE_SOURCE:
            return state, []
        if before is not None:
            fields = {"finding": before.value, "path": self.target, "seconds": self.now - state.found_at}
            return state, [TellEvent(MountRestored, fields)]
        event: type[MountSeen] = MountBound if bound else MountAdopted
        told: list[Action] = [TellEvent(event, {"source": self.source, "path": self.target})]
        if not view.stack[-1].shared:
            told.append(TellEvent(MountUnshared, {"path": self.target, "hint": hints.UNSHARED}))
        return state, told

    def proved(self, state: MountState, seen: Proved) -> Decision:
        """Take a write test's outcome in, and act where staying on the target would lose dumps."""
        proof = seen.proof
        if proof.backend is not Backend.HUNG and state.asked != state.changes:
            return replace(state, prove_at=self.now), []  # it was about a mount that is gone
        first, was_ready = state.proof is None, state.ready
        mapped_before = state.proof.mapped_uid if state.proof else None
        state = replace(state, proof=proof)
        fields = {
            "outcome": proof.backend.value, "step": proof.step, "seconds": seen.seconds,
            "through_target": proof.through_target,
        }  # fmt: skip
        actions: list[Action] = [TellEvent(WriteTested, fields)]
        for name, uid in proof.moved_aside:
            taken = {"path": f"{self.target}/{name}", "uid": uid, "hint": hints.NAME_TAKEN}
            actions.append(TellEvent(NameTaken, taken))
        if proof.mapped_uid not in (None, mapped_before):
            mapped = {"path": self.target, "uid": proof.mapped_uid, "hint": MAPPED_HINT}
            actions.append(TellEvent(UsersMapped, mapped))
        if first and state.found is None and proof.backend in (Backend.DEAD, Backend.MISSING):
            message = f"MOUNT_SOURCE {self.source!r} cannot be used: {proof.step}: {proof.error}"
            return state, [*actions, GiveUp(message, hints.UNUSABLE)]
        actions += self._told_of(proof)
        if proof.ready and not was_ready:
            actions.append(TellEvent(WriteProven, {"path": self.target}))
        state = replace(state, strikes=state.strikes + 1 if proof.backend in _UNBIND else 0)
        if state.strikes >= _STRIKES and not state.aside:
            actions.append(Do.CLEAR)
        state = replace(state, look_at=self.now)  # it may be fit to bind now
        if proof.backend is Backend.WRITABLE:
            again = not proof.ready and state.found is Shows.THE_SOURCE
            return replace(
                state,
                bad_proofs=0,
                prove_at=self.now if again else state.prove_at,
                rescue_at=state.rescue_at if was_ready else self.now,
            ), actions
        bad = state.bad_proofs + 1
        again_s = min(state.times.longest_backoff_s, state.times.tick_s, 2.0 ** min(bad, 30) / 8)
        return replace(state, bad_proofs=bad, prove_at=self.now + again_s), actions

    def _told_of(self, proof: Proof) -> list[Action]:
        told: list[Action] = []
        for kind in hints.BACKENDS:
            if kind is proof.backend:
                fields = {"path": self.source, "step": proof.step, "hint": hints.BACKENDS[kind]}
                told.append(Failing(Trouble.BACKEND, proof.error, kind.value, fields))
            elif proof.backend is Backend.WRITABLE:
                told.append(
                    Over(Trouble.BACKEND, kind.value, fields={"path": self.source, "finding": kind.value})
                )
            else:
                told.append(Over(Trouble.BACKEND, kind.value, silent=True))  # it turned into another
        return told

    def cleared(self, state: MountState, layers: int) -> Decision:
        state = replace(state, changes=state.changes + 1)
        proof = state.proof
        if proof is None or proof.backend not in _SET_ASIDE:
            return state, []
        state = replace(state, aside=True)
        if not layers:
            return state, []
        fields = {
            "path": self.target, "finding": proof.backend.value, "error": proof.error,
            "hint": hints.BACKENDS[proof.backend],
        }  # fmt: skip
        return replace(state, found=Shows.NOTHING, found_at=self.now), [TellEvent(MountSetAside, fields)]

    def child_refused(self, state: MountState, seen: ForkRefused) -> Decision:
        testing = seen.child is Child.WRITE_TEST
        path = self.source if testing else self.target
        if testing:
            state = replace(state, prove_at=self.now + min(state.times.soon_s, state.times.tick_s))
        return state, [Failing(Trouble.FORK, seen.error, seen.child.value, {"path": path})]

    def turn_ends(self, state: MountState, seen: TurnEnds) -> Decision:
        """Start what is due, one child at the volume at a time unless one has a long copy to make; then beat."""
        actions: list[Action] = []
        testing = seen.testing
        if self.now >= state.prove_at:
            state = replace(state, prove_at=self.now + state.times.tick_s)
            if not testing:
                state, testing = replace(state, asked=state.changes), True
                actions.append(StartTest(through_target=state.found is Shows.THE_SOURCE))
        if self.now >= state.rescue_at and state.ready and not testing and not seen.rescuing:
            state = replace(state, rescue_at=self.now + state.times.tick_s)  # unless a loss makes it sooner
            actions.append(Do.START_RESCUE)
        reason = _why(state)
        if reason != state.beaten or self.now >= state.beat_at:
            state = replace(state, beaten=reason, beat_at=self.now + state.times.tick_s)
            actions.append(Beat(state.ready, reason))
        return state, actions


def _why(state: MountState) -> str:
    shows = state.found.value if state.found else "nothing yet"
    if state.ready:
        return "writes through the target reach the volume"
    if state.proof is None:
        return f"the target shows {shows}, the volume was not tested yet"
    if state.proof.backend is Backend.WRITABLE:
        return f"the target shows {shows}, no write through it is proven yet"
    return f"the target shows {shows}, the volume is {state.proof.backend.value} ({state.proof.step}: {state.proof.error})"
