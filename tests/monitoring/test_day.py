"""A day on which nothing goes wrong: no alert fires, and the log is a handful of lines."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.stores.server import HOST, StoreServer, free_ports
from tests.monitoring.day import DUMPS_AT
from tests.monitoring.rules import REPOSITORY, rules, write_rules
from tests.mount.node import Node, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.needs("promtool")]
_MINUTES = 1441
_LIMIT_S = 1500.0  # against hanging
_PODS = {"mount": "dump-volume-manager-0", "upload": "heap-dump-s3-uploader-0"}
Series = dict[str, list[float | None]]


@pytest.fixture
def day(tmp_path: Path, moto: StoreServer) -> dict[str, Any]:
    """Run both daemons through their day; give what was scraped, and the lines of their logs."""
    mount_port, upload_port = free_ports(2)
    environment = {**os.environ, **moto.environment(moto.new_bucket()), "METRICS_ADDRESS": HOST, "NODE_NAME": "worker-1",
                   "LOG_FORMAT": "json", "RUNTIME_DIR": f"{tmp_path}/run", "PYTHONPATH": str(REPOSITORY)}  # fmt: skip
    with Node(tmp_path / "node") as node:
        running = {
            "mount": node.manager_container().popen(
                [sys.executable, "-m", "tests.monitoring.day", f"{tmp_path}/mount.json", "mount"],
                stderr=(tmp_path / "mount.log").open("wb"),
                env=environment | {"MOUNT_SOURCE": node.source, "MOUNT_TARGET": node.target,
                                   "METRICS_PORT": str(mount_port), "MOUNT_CHECK_INTERVAL": "60"},
            ),
        }  # fmt: skip
        eventually(node.in_volume(".ready").exists, ".ready", within_s=_LIMIT_S)
        running["upload"] = node.app().popen(
            [sys.executable, "-m", "tests.monitoring.day", f"{tmp_path}/upload.json", "upload"],
            stderr=(tmp_path / "upload.log").open("wb"),
            env=environment | {"DUMP_ROOT": node.dumps, "METRICS_PORT": str(upload_port), "STORE_CHECK_INTERVAL": "3600"},
        )  # fmt: skip
        try:
            codes = {mode: process.wait(_LIMIT_S) for mode, process in running.items()}
        finally:
            for process in running.values():
                process.kill()
                process.wait()
    logs = {mode: (tmp_path / f"{mode}.log").read_text() for mode in _PODS}
    assert codes == {"mount": 0, "upload": 0}, logs
    return {
        mode: (
            json.loads((tmp_path / f"{mode}.json").read_text()),
            [json.loads(line) for line in logs[mode].splitlines()],
        )
        for mode in _PODS
    }


def test_a_day_of_the_real_daemons_fires_nothing_and_says_little(
    day: dict[str, tuple[Series, list[dict[str, Any]]]], tmp_path: Path
) -> None:
    series = _as_scraped({mode: recorded for mode, (recorded, _) in day.items()})
    stored = 'dumpagent_dumps_stored_total{cause="oom",verdict="complete"}'
    scans = [value for value in day["upload"][0]["dumpagent_last_scan_timestamp_seconds"] if value]
    assert len(scans) > _MINUTES - 10
    assert scans[-1] - scans[0] > 86000, "the day was lived through"
    assert day["upload"][0][stored][-1] == len(DUMPS_AT)

    ever = 'count by (alertname) (count_over_time(ALERTS{alertstate="firing"}[24h]))'
    assert _promtool(tmp_path, series, ever, []) == ""
    away = {name: "1x599 0x841" if "store_reachable" in name else values for name, values in series.items()}
    fires = [{"labels": '{alertname="DumpStoreUnreachable"}', "value": 1}]
    assert _promtool(tmp_path, away, ever, fires) == "", "else this test could not fail"

    for mode, (_, lines) in day.items():
        said = Counter(line["event"] for line in lines)
        for event in ("dump_found", "dump_claimed", "dump_uploaded", "dump_summarised"):
            assert said.pop(event, 0) == (len(DUMPS_AT) if mode == "upload" else 0)
        assert said.total() <= 8, said
        assert not [line for line in lines if line["level"] == "error"]


def _as_scraped(recorded: dict[str, Series]) -> dict[str, str]:
    """Give promtool's input of every series that an alert asks for, with the labels that the PodMonitor adds."""
    asked = set(re.findall(r"\b(?:dumpagent|process)_\w+", " ".join(rule["expr"] for rule in rules())))
    series = {}
    for mode, found in recorded.items():
        target = f'job="dumpagent",node="worker-1",pod="{_PODS[mode]}"'
        series[f"up{{{target}}}"] = f"1x{_MINUTES - 1}"
        for name, values in found.items():
            metric, _, labels = name.rstrip("}").partition("{")
            if metric in asked:
                series[f"{metric}{{{','.join(filter(None, (labels, target)))}}}"] = _values(values)
    # memory-watch has no part in this day: tests/unit/memory_watch lets 24 hours of its own pass.
    of_memory_watch = {"dumpagent_containers_killed_total", "dumpagent_memory_missing_bytes"}
    assert {name.partition("{")[0] for name in series} >= asked - of_memory_watch
    return series


def _values(values: list[float | None]) -> str:
    """Source: promtool's documentation, "Unit testing for rules", series: `axn` is a, n times more."""
    words = []
    for value, times in ((value, len(list(same))) for value, same in groupby(values, key=_written)):
        words.append(f"{value}x{times - 1}" if value != "NaN" else " ".join(["NaN"] * times))
    return " ".join(words)


def _written(value: float | None) -> str:
    return "_" if value is None else "NaN" if math.isnan(value) else repr(value)


def _promtool(folder: Path, series: dict[str, str], expression: str, samples: list[dict[str, Any]]) -> str:
    """Give what promtool has against the rules' giving these samples at midnight; empty: nothing."""
    write_rules(folder / "rules.yaml")
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": "24h", "exp_samples": samples}],
    }
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (folder / "tests.yaml").write_text(yaml.safe_dump(whole, width=10_000))
    said = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"], cwd=folder, capture_output=True, text=True, check=False
    )
    return said.stdout + said.stderr if said.returncode else ""
