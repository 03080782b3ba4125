"""A name that somebody holds open and never writes is told once, with the user who does it, and so is its end."""

from __future__ import annotations

from dumpagent.dumps.model import DumpFile, Identity, State, Verdict
from dumpagent.observe.events import Event
from dumpagent.observe.events.volume import FileHeldOpen, FileReleased
from dumpagent.observe.held_open import LEAST_S, HeldOpen

_DUMP = DumpFile("/mnt/dump", "java_pid1.hprof", Identity(7, 0, 0), 1, uid=10007)


def _writing(held_open_s: float) -> Verdict:
    return Verdict(State.WRITING, "a process has it open", due=False, held_open_s=held_open_s)


def test_it_is_told_once_with_its_user_and_its_end() -> None:
    told: list[Event] = []
    held = HeldOpen(told.append)
    for seconds in (0.0, LEAST_S - 1, LEAST_S, LEAST_S + 30, 2 * LEAST_S):
        held.note(_DUMP, _writing(seconds))
    (begun,) = told
    assert isinstance(begun, FileHeldOpen)
    assert (begun.path, begun.uid) == ("/mnt/dump/java_pid1.hprof", 10007)
    held.note(_DUMP, Verdict(State.TRUNCATED, "it ends in the middle", due=False))
    assert [type(event) for event in told] == [FileHeldOpen, FileReleased]


def test_a_jvm_that_writes_is_not_told() -> None:
    told: list[Event] = []
    held = HeldOpen(told.append)
    for _ in range(100):
        held.note(_DUMP, _writing(29.0))
    assert told == []
