"""A run of the bench says how long it will take, and takes no longer than `make help` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.__main__ import Bench, plan
from bench.clients import clients
from bench.stage import Stage
from bench.steps import Step, take_all


@pytest.mark.parametrize(("quick", "minutes"), [(False, 30), (True, 3)])
def test_a_run_is_planned_to_take_what_is_promised(quick: bool, minutes: float) -> None:
    steps = plan(Bench(Stage(), clients(Path("tools"))), quick=quick)
    assert sum(step.expected_s for step in steps) <= minutes * 60


def test_a_run_with_one_client_leaves_out_the_rounds_of_the_others() -> None:
    known = clients(Path("tools"))
    steps = plan(Bench(Stage(), {"s5cmd": known["s5cmd"]}), quick=False)
    assert not [step.name for step in steps if "MiB over http," in step.name or "200m / " in step.name]
    assert [step.name for step in steps if "1024 MiB over https" in step.name]


def test_the_time_left_follows_the_pace_of_what_is_done() -> None:
    now, told = [0.0], list[str]()

    def pass_s(seconds: float) -> None:
        now[0] += seconds

    steps = [Step("one", 60, lambda: pass_s(120)), Step("two", 120, lambda: pass_s(240))]
    take_all(steps, told.append, clock=lambda: now[0])
    assert told == ["[1/2, about 3 min left] one", "[2/2, about 4 min left] two"]


def test_ctrl_c_in_a_step_ends_the_run_there() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    taken = list[str]()
    steps = [
        Step("one", 1, lambda: taken.append("one")),
        Step("two", 1, interrupted),
        Step("three", 1, lambda: taken.append("three")),
    ]
    with pytest.raises(KeyboardInterrupt):
        take_all(steps, lambda line: None)
    assert taken == ["one"]
