"""Every transition of mount mode, without a kernel: what is seen, what is known then, what is done about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dumpagent.mount import hints
from dumpagent.mount.backend import Backend, Proof
from dumpagent.mount.decide import LOST, decide, wake_at
from dumpagent.mount.state import (
    Action,
    Beat,
    BindFailed,
    BindPace,
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
    Times,
    Trouble,
    TurnEnds,
    WaitEnded,
)
from dumpagent.mount.table import Mount, Shows, View
from dumpagent.observe.events.mount import (
    MountAdopted,
    MountLost,
    MountReadOnly,
    MountRestored,
    MountSetAside,
    MountUnshared,
    WriteProven,
    WriteTested,
)

TICK_S, NOW = 30.0, 1000.0
WELL = Proof(Backend.WRITABLE, "all", through_target=True)
BLIND = Proof(Backend.WRITABLE, "all")  # the source takes writes; nothing is proven of the target


def mount(number: int, *, read_only: bool = False, shared: bool = True) -> Mount:
    return Mount(number, 1, "8:1", "/pv", "/t", read_only, shared, "ext4", "/dev/sda", read_only)


def view(
    shows: Shows, *, number: int = 7, device: str = "8:1", fs_read_only: bool = False, shared: bool = True
) -> View:
    stack = () if shows is Shows.NOTHING else (mount(number, shared=shared),)
    source = replace(mount(3), device=device, file_system_read_only=fs_read_only)
    return View(shows, stack, source, "/pv")


FRESH = MountState(Times(TICK_S), pace=BindPace(at=NOW))
KEPT = replace(
    FRESH, view=view(Shows.THE_SOURCE), found=Shows.THE_SOURCE, proof=WELL, changes=1, asked=1, beaten="x",
    look_at=NOW + 9, prove_at=NOW + 9, rescue_at=NOW + 9, beat_at=NOW + 9,
)  # fmt: skip


def see(state: MountState, seen: Happening, *, now: float = NOW) -> tuple[MountState, list[Action]]:
    return decide(seen, state, now, source="/s", target="/t")


def told(actions: list[Action]) -> list[type]:
    return [action.event for action in actions if isinstance(action, TellEvent)]


# -- the table -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("changed", "look_at", "reads"), [(True, NOW + 9, True), (False, NOW, True), (False, NOW + 9, False)])  # fmt: skip
def test_the_table_is_read_when_it_changed_and_at_each_tick(
    changed: bool, look_at: float, reads: bool
) -> None:
    state, actions = see(replace(KEPT, look_at=look_at), WaitEnded(changed))
    assert actions == ([Do.READ_TABLE] if reads else [])
    assert state.look_at == (NOW + TICK_S if reads else look_at)


def test_a_table_that_cannot_be_read_changes_nothing_and_is_read_again_soon() -> None:
    state, actions = see(KEPT, TableNotRead("torn"))
    assert actions == [Failing(Trouble.TABLE, "torn", fields={"path": "/t"})]
    assert state == replace(KEPT, look_at=NOW + 1)


def test_at_the_start_a_mount_that_is_there_is_adopted() -> None:
    state, actions = see(FRESH, TableRead(view(Shows.THE_SOURCE)))
    assert told(actions) == [MountAdopted]
    assert (state.found, state.changes) == (Shows.THE_SOURCE, 1)


def test_a_mount_that_no_other_container_will_see_is_told() -> None:
    _, actions = see(FRESH, TableRead(view(Shows.THE_SOURCE, shared=False)))
    adopted, unshared = told(actions)
    assert (adopted is MountAdopted, unshared is MountUnshared) == (True, True)


def test_at_the_start_nothing_is_bound_before_the_volume_was_tested() -> None:
    state, actions = see(FRESH, TableRead(view(Shows.NOTHING)))
    assert Do.BIND not in actions
    assert told(actions) == []  # there was never a mount to lose
    assert state.found is None


@pytest.mark.parametrize("shows", [Shows.NOTHING, Shows.ANOTHER, Shows.STACKED, Shows.READ_ONLY])
def test_a_lost_mount_is_bound_first_and_told_then(shows: Shows) -> None:
    state, actions = see(KEPT, TableRead(view(shows)))
    assert actions == [Over(Trouble.TABLE, fields={"path": "/t"}), Do.BIND]
    state, actions = see(state, Bound(view(Shows.THE_SOURCE, number=8)), now=NOW + 0.5)
    assert told(actions) == [LOST[shows], MountRestored]
    assert actions[-1] == TellEvent(MountRestored, {"finding": shows.value, "path": "/t", "seconds": 0.5})
    assert not state.ready  # until a write through the new mount is proven
    assert state.prove_at == NOW + 0.5


@pytest.mark.parametrize("backend", sorted(Backend, key=str))
def test_only_a_volume_that_answers_is_bound(backend: Backend) -> None:
    state = replace(KEPT, found=Shows.NOTHING, proof=Proof(backend, "write"))
    _, actions = see(state, TableRead(view(Shows.NOTHING)))
    fit = backend in (Backend.WRITABLE, Backend.FULL, Backend.REFUSING, Backend.STALE_TARGET)
    assert (Do.BIND in actions) == fit


def test_a_read_only_file_system_is_told_and_left_to_the_write_test() -> None:
    state, actions = see(KEPT, TableRead(view(Shows.READ_ONLY, fs_read_only=True)))
    assert told(actions) == [MountReadOnly]
    assert Do.BIND not in actions
    assert state.prove_at == NOW


def test_what_was_told_is_not_told_again_while_it_cannot_be_mended() -> None:
    dead = replace(KEPT, proof=Proof(Backend.HUNG, "test"))
    state, actions = see(dead, TableRead(view(Shows.NOTHING)))
    assert told(actions) == [MountLost]
    _, actions = see(state, TableRead(view(Shows.NOTHING)))
    assert told(actions) == []


def test_another_volume_at_the_source_makes_all_that_was_known_void() -> None:
    state, actions = see(KEPT, TableRead(view(Shows.ANOTHER, device="8:2")))
    assert actions[1:3] == [Do.ABANDON_TEST, Do.ABANDON_RESCUE]
    assert (state.proof, state.aside, state.prove_at) == (None, False, NOW)
    assert Do.BIND not in actions  # the new one is tested first


def test_a_source_that_is_mounted_read_only_itself_is_not_bound_again_at_once() -> None:
    state, _ = see(KEPT, TableRead(view(Shows.READ_ONLY)))
    state, actions = see(state, Bound(view(Shows.READ_ONLY)))
    assert told(actions) == [MountReadOnly]
    assert state.found is Shows.READ_ONLY
    assert Do.BIND not in see(state, TableRead(view(Shows.READ_ONLY)), now=NOW + 1)[1]


def test_a_mount_that_fails_is_told_and_tried_again_ever_later() -> None:
    state, _ = see(KEPT, TableRead(view(Shows.NOTHING)))
    waits = []
    for _ in range(12):
        state, actions = see(state, BindFailed("busy", "wait"))
        waits.append(state.repair_at - NOW)
    assert told(actions) == []  # MOUNT_LOST once, at the first
    assert actions == [Failing(Trouble.REMOUNT, "busy", fields={"path": "/t", "hint": "wait"})]
    assert waits[0] == pytest.approx(0.1)
    assert waits == sorted(waits)
    assert waits[-1] == 30
    assert Do.BIND not in see(state, TableRead(view(Shows.NOTHING)), now=NOW + 29)[1]
    assert Do.BIND in see(state, TableRead(view(Shows.NOTHING)), now=NOW + 31)[1]


def test_a_fight_with_somebody_who_unmounts_costs_a_bounded_number_of_mounts() -> None:
    state, bound = KEPT, 0
    for _ in range(1000):
        state, actions = see(state, TableRead(view(Shows.NOTHING)))
        if Do.BIND in actions:
            bound += 1
            state, _ = see(state, Bound(view(Shows.THE_SOURCE)))
    assert bound == 100
    assert Failing(Trouble.REMOUNT, "somebody else undoes every mount", fields={"path": "/t", "hint": hints.FOUGHT}) in see(replace(state, repair_at=0), TableRead(view(Shows.NOTHING)))[1]  # fmt: skip


def test_the_pace_is_a_burst_and_then_a_rate() -> None:
    pace, waits = BindPace(burst=3, per_s=10, left=3, at=NOW), []
    for now in (NOW, NOW, NOW, NOW, NOW + 0.11, NOW + 0.12, NOW + 900):
        pace, wait_s = pace.take(now)
        waits.append(wait_s)
    assert waits[:3] == [0, 0, 0]
    assert 0 < waits[3] <= 0.1
    assert waits[4] == 0
    assert waits[5] > 0
    assert waits[6] == 0
    assert pace.left == 2  # what was not used is not saved up


# -- write tests ---------------------------------------------------------------------------------------------------


def test_a_write_test_that_is_proven_makes_ready_and_rescues_at_once() -> None:
    state, actions = see(replace(KEPT, proof=BLIND), Proved(WELL, 0.1))
    assert told(actions) == [WriteTested, WriteProven]
    assert state.ready
    assert (state.rescue_at, state.look_at, state.bad_proofs) == (NOW, NOW, 0)


def test_a_test_of_the_source_alone_is_followed_by_one_through_the_target() -> None:
    state, _ = see(replace(KEPT, proof=None), Proved(BLIND, 0.1))
    assert state.prove_at == NOW
    assert not state.ready


def test_an_answer_about_a_mount_that_is_gone_counts_for_nothing() -> None:
    state, actions = see(replace(KEPT, changes=2), Proved(Proof(Backend.DEAD, "write"), 0.1))
    assert actions == []
    assert state == replace(KEPT, changes=2, prove_at=NOW)


def test_a_hung_volume_is_told_whatever_was_mounted_meanwhile() -> None:
    state, actions = see(replace(KEPT, changes=2), Proved(Proof(Backend.HUNG, "test", "no answer"), 10.0))
    assert any(isinstance(action, Failing) and action.kind == "hung" for action in actions)
    assert not state.ready
    assert Do.CLEAR not in actions  # who waits for it has lost nothing


@pytest.mark.parametrize("backend", [Backend.DEAD, Backend.MISSING])
def test_a_start_without_a_volume_is_refused(backend: Backend) -> None:
    state = replace(FRESH, changes=0, asked=0)
    _, actions = see(state, Proved(Proof(backend, "look at the source", "gone"), 0.1))
    assert isinstance(actions[-1], GiveUp)
    _, actions = see(replace(KEPT, proof=None), Proved(Proof(backend, "look", "gone"), 0.1))
    assert not any(isinstance(action, GiveUp) for action in actions)


@pytest.mark.parametrize("backend", sorted(set(Backend) - {Backend.WRITABLE}, key=str))
def test_a_bad_volume_is_told_with_its_hint_and_the_other_troubles_are_forgotten(backend: Backend) -> None:
    state, actions = see(KEPT, Proved(Proof(backend, "write", "why"), 0.1))
    failing = [action for action in actions if isinstance(action, Failing)]
    assert failing == [
        Failing(Trouble.BACKEND, "why", backend.value, {"path": "/s", "step": "write", "hint": hints.BACKENDS[backend]})
    ]  # fmt: skip
    assert all(action.silent for action in actions if isinstance(action, Over))
    assert NOW < state.prove_at <= NOW + 30
    assert not state.ready


def test_a_bad_volume_is_tested_ever_later_up_to_the_tick() -> None:
    state, waits = KEPT, []
    for _ in range(12):
        state, _ = see(state, Proved(Proof(Backend.FULL, "write"), 0.1))
        waits.append(state.prove_at - NOW)
    assert waits[0] == 0.25
    assert waits == sorted(waits)
    assert waits[-1] == 30


@pytest.mark.parametrize("backend", [Backend.DEAD, Backend.READ_ONLY, Backend.STALE_TARGET])
def test_what_refuses_every_write_twice_is_taken_off_the_target(backend: Backend) -> None:
    state, actions = see(KEPT, Proved(Proof(backend, "write"), 0.1))
    assert Do.CLEAR not in actions  # a single error may pass
    state, actions = see(state, Proved(Proof(backend, "write"), 0.1))
    assert Do.CLEAR in actions
    state, actions = see(state, Cleared(1))
    stale = backend is Backend.STALE_TARGET
    assert state.aside == (not stale)
    assert told(actions) == ([] if stale else [MountSetAside])
    assert state.changes == KEPT.changes + 1


def test_a_volume_that_was_set_aside_is_not_bound_or_told_until_it_is_well() -> None:
    aside = replace(KEPT, aside=True, found=Shows.NOTHING, proof=Proof(Backend.DEAD, "write"))
    state, actions = see(aside, TableRead(view(Shows.NOTHING)))
    assert actions == [Over(Trouble.TABLE, fields={"path": "/t"})]
    state = replace(state, asked=state.changes)
    state, actions = see(state, Proved(BLIND, 0.1))
    assert any(isinstance(action, Over) and action.kind == "dead" and not action.silent for action in actions)
    _, actions = see(state, TableRead(view(Shows.NOTHING)))
    assert Do.BIND in actions


def test_nothing_is_told_when_there_was_nothing_to_take_off() -> None:
    state, actions = see(replace(KEPT, proof=Proof(Backend.DEAD, "write")), Cleared(0))
    assert (state.aside, actions) == (True, [])


def test_a_mount_that_cannot_be_taken_off_is_told() -> None:
    state, actions = see(KEPT, ClearFailed("denied"))
    assert actions == [Failing(Trouble.REMOUNT, "denied", fields={"path": "/t", "hint": hints.REMOUNT})]
    assert state == KEPT


# -- children and the heartbeat --------------------------------------------------------------------------------------


def ends(
    state: MountState, *, testing: bool = False, rescuing: bool = False
) -> tuple[MountState, list[Action]]:
    return see(state, TurnEnds(testing, rescuing))


def test_the_volume_is_tested_when_it_is_time_through_the_target_if_that_shows_it() -> None:
    state, actions = ends(replace(KEPT, prove_at=NOW, changes=5))
    assert actions[0] == StartTest(through_target=True)
    assert (state.asked, state.prove_at) == (5, NOW + TICK_S)
    _, actions = ends(replace(KEPT, prove_at=NOW, found=Shows.NOTHING))
    assert actions[0] == StartTest(through_target=False)


def test_there_is_one_write_test_at_a_time() -> None:
    state, actions = ends(replace(KEPT, prove_at=NOW), testing=True)
    assert not any(isinstance(action, StartTest) for action in actions)
    assert state.asked == KEPT.asked


@pytest.mark.parametrize(
    ("change", "busy", "rescues"),
    [
        ({}, {}, True),
        ({"prove_at": NOW}, {}, False),
        ({}, {"testing": True}, False),
        ({}, {"rescuing": True}, False),
        ({"found": Shows.NOTHING}, {}, False),
        ({"proof": BLIND}, {}, False),
        ({"rescue_at": NOW + 1}, {}, False),
    ],
)
def test_files_are_rescued_only_while_ready_and_beside_no_other_child(
    change: dict[str, object], busy: dict[str, bool], rescues: bool
) -> None:
    state, actions = ends(replace(KEPT, **{"rescue_at": NOW, **change}), **busy)  # type: ignore[arg-type]
    assert (Do.START_RESCUE in actions) == rescues
    if rescues:
        assert state.rescue_at == NOW + TICK_S


@pytest.mark.parametrize(("waiting", "again_s"), [(0, TICK_S), (3, 1.0)])
def test_files_that_are_still_written_are_looked_at_again_soon(waiting: int, again_s: float) -> None:
    state, actions = see(replace(KEPT, rescue_at=NOW + 99), RescueEnded(waiting))
    assert (state.rescue_at, actions) == (NOW + again_s, [])


@pytest.mark.parametrize(("child", "path"), [(Child.WRITE_TEST, "/s"), (Child.RESCUE, "/t")])
def test_a_child_that_cannot_be_had_is_told_and_tried_again(child: Child, path: str) -> None:
    state, actions = see(replace(KEPT, prove_at=NOW + TICK_S), ForkRefused(child, "no memory"))
    assert actions == [Failing(Trouble.FORK, "no memory", child.value, {"path": path})]
    assert state.prove_at == (NOW + 1 if child is Child.WRITE_TEST else NOW + TICK_S)
    _, actions = see(state, Forked(child))
    assert actions == [Over(Trouble.FORK, child.value, fields={"path": path})]


def test_the_probes_hear_every_change_at_once_and_each_tick() -> None:
    state, actions = ends(replace(KEPT, beaten="other"))
    assert actions == [Beat(True, "writes through the target reach the volume")]
    assert ends(state)[1] == []
    assert see(replace(state, prove_at=NOW + 99, rescue_at=NOW + 99), TurnEnds(False, False), now=NOW + TICK_S)[1] == actions  # fmt: skip


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (replace(FRESH, prove_at=NOW + 9), "the target shows nothing yet, the volume was not tested yet"),
        (replace(KEPT, proof=BLIND), "the target shows the-source, no write through it is proven yet"),
        (replace(KEPT, proof=Proof(Backend.FULL, "write", "No space left")), "the target shows the-source, the volume is full (write: No space left)"),
    ],
)  # fmt: skip
def test_the_probes_are_told_why_it_is_not_ready(state: MountState, reason: str) -> None:
    assert ends(state)[1][-1] == Beat(False, reason)


def test_the_next_wake_up_is_the_earliest_thing_that_can_be_done() -> None:
    state = replace(KEPT, look_at=NOW + 9, beat_at=NOW + 8, prove_at=NOW + 5, rescue_at=NOW + 3)
    assert wake_at(state, testing=False, rescuing=False, overdue_at=None) == NOW + 3
    assert wake_at(state, testing=False, rescuing=True, overdue_at=None) == NOW + 5
    assert wake_at(state, testing=True, rescuing=False, overdue_at=NOW + 7) == NOW + 7
    assert wake_at(state, testing=True, rescuing=False, overdue_at=None) == NOW + 8
    assert wake_at(replace(state, proof=None), testing=False, rescuing=False, overdue_at=None) == NOW + 5


def test_hints_are_there_for_everything_that_can_be_found() -> None:
    """No finding without a hint."""
    assert set(hints.FINDINGS) == set(Shows) - {Shows.THE_SOURCE}
    assert set(hints.BACKENDS) == set(Backend) - {Backend.WRITABLE}
