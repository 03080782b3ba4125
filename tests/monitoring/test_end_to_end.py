"""Real daemons, a real store, a real Prometheus with the shipped alerts: a fault comes, and everybody is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.stores.server import StoreServer
from tests.monitoring.cases import CASES, Case
from tests.monitoring.rules import REPOSITORY
from tests.monitoring.world import LONG_S, SECRET, World
from tests.mount.node import eventually
from tools.dashboard import queries

pytestmark = [pytest.mark.timeout(600), pytest.mark.needs("prometheus")]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Case | None:
    """Nothing goes wrong, unless a test says what."""
    return getattr(request, "param", None)


@pytest.fixture
def world(tmp_path: Path, moto: StoreServer, case: Case | None) -> Iterator[World]:
    running = World(tmp_path, moto, case.volume if case else None)
    try:
        running.dump("first.hprof")
        running.until_stored(1)
        yield running
    finally:
        running.close()


@pytest.mark.slow
def test_with_no_fault_nothing_fires_every_panel_has_data_and_no_secret_is_told(world: World) -> None:
    world.manager.container.run("umount(path, 2)", path=world.node.target)
    world.manager.told("mount_restored")
    world.dump("second.hprof")
    world.until_stored(2)
    empty = [(title, query.replace('"$node"', '".*"')) for title, query in queries()]

    def still_empty() -> list[tuple[str, str]]:
        empty[:] = [(title, query) for title, query in empty if not world.prometheus.query(query)]
        return empty

    # The ranges of the dashboard need two scrapes; with one a second that is soon.
    eventually(lambda: not still_empty(), f"panels without data: {empty}", within_s=LONG_S)
    assert world.prometheus.firing() == set()
    seen, uploaded, failed, pending = (
        float(world.prometheus.query(f"dumpagent_dumps_{name}")[0]["value"][1])
        for name in ("seen_total", "uploaded_total", "failed_total", "pending")
    )
    assert seen == uploaded + failed + pending == 2
    code, findings = world.doctor()
    assert code == 0, findings
    for text in (world.log.read_text(), world.manager.log_path.read_text()):
        assert SECRET not in text


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name, indirect=True)
def test_a_fault_is_told_by_metric_alert_log_and_doctor(case: Case, world: World) -> None:
    assert world.prometheus.query(case.metric) == []
    case.strike(world)
    eventually(lambda: world.prometheus.query(case.metric), case.metric, within_s=LONG_S)
    eventually(lambda: case.alert in world.prometheus.firing(), f"{case.alert} fires", within_s=LONG_S)

    name, seen, fix = case.finding
    code, findings = world.doctor()
    assert code == 1
    assert findings[name]["result"] == "failed", findings
    assert seen in findings[name]["seen"]
    assert fix in findings[name]["fix"]

    case.afterwards(world)

    def told() -> list[dict[str, Any]]:
        # A dump that is stored is no fault, and has no hint.
        return [line for line in world.events(case.log) if line["level"] != "info" or "hint" in line]

    (line,) = eventually(told, case.log, within_s=LONG_S)
    assert line["hint"]
    assert len(told()) == 1, "once, however long it lasts"


def test_the_documented_table_of_faults_is_what_is_tested() -> None:
    text = (REPOSITORY / "docs/monitoring.md").read_text()
    head = "| Fault | Metric | Alert | Log | `dumpagent doctor` |\n| --- | --- | --- | --- | --- |\n"
    assert head + "\n".join(case.row for case in CASES) + "\n\n" in text
