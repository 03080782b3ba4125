"""A fault of ours costs one step of one loop: it is told once, then seldom, and its end too."""

from __future__ import annotations

import threading

import pytest

from dumpagent.errors import Unreachable
from dumpagent.observe.barrier import Barrier, repeat
from tests.unit.upload.conftest import Told


def _fail() -> None:
    raise ValueError("nobody foresaw this")


def test_a_fault_is_told_with_its_trace_once_then_seldom_until_the_step_works_again() -> None:
    now, told = 0.0, Told()
    barrier = Barrier(told, monotonic=lambda: now)
    while now < 1200:
        assert not barrier.run("scan", _fail, path="/mnt/dump/a.hprof")
        now += 10
    assert barrier.run("scan", lambda: None, path="/mnt/dump/b.hprof"), "another file's success ends nothing"
    assert told.names() == ["agent_faulty", "agent_faulty"]
    first, second = told.of("agent_faulty")
    assert (first["error"], first["step"]) == ("ValueError: nobody foresaw this", "scan")
    assert "in _fail" in str(first["trace"])
    assert second["times"] == 61
    assert barrier.run("scan", lambda: None, path="/mnt/dump/a.hprof")
    assert told.names()[-1] == "agent_sound"


def test_what_the_caller_foresees_passes() -> None:
    def unreachable() -> None:
        raise Unreachable("no answer")

    told = Told()
    with pytest.raises(Unreachable):
        Barrier(told).run("delete", unreachable, foreseen=(Unreachable,))
    assert told.events == []


def test_a_thread_goes_on_after_a_fault() -> None:
    told, done, steps = Told(), threading.Event(), [_fail, _fail]

    def step() -> None:
        if steps:
            steps.pop()()
        done.set()

    thread = repeat("notify", step, stopped=done.is_set, barrier=Barrier(told), pause_s=0)
    assert done.wait(10)
    thread.join(10)
    assert told.names() == ["agent_faulty", "agent_sound"]
