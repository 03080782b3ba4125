"""Each alert fires on its fault and on no other, and a day without a fault fires none: asked of promtool."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.monitoring.rules import REPOSITORY, rules, write_rules
from tools.project import runbook_url

pytestmark = pytest.mark.needs("promtool")

WHO = 'job="dumpagent",node="worker-1",'
MOUNT, UPLOAD = WHO + 'pod="dump-volume-manager-0"', WHO + 'pod="heap-dump-s3-uploader-0"'
WATCH = WHO + 'pod="heap-dump-memory-watch-x"'
_KUBE = 'job="kube-state-metrics",'
_KUBE_MANAGER = _KUBE + 'namespace="heap-dumps",pod="dump-volume-manager-0",node="worker-1"'
_KUBE_APP = _KUBE + 'namespace="shop",pod="cart-0",node="worker-1"'
_DAY = 1440  # one sample a minute
# Of a node where all is well: a dump every six hours, a restart of the uploader at noon, the volume in use.
HEALTHY: dict[str, str] = {
    f"up{{{MOUNT}}}": f"1x{_DAY}",
    f"up{{{UPLOAD}}}": f"1x{_DAY}",
    f'dumpagent_build_info{{{MOUNT},mode="mount",version="1"}}': f"1x{_DAY}",
    f'dumpagent_build_info{{{UPLOAD},mode="upload",version="1"}}': f"1x{_DAY}",
    f"process_start_time_seconds{{{MOUNT}}}": f"1x{_DAY}",
    f"process_start_time_seconds{{{UPLOAD}}}": f"1x720 43200x{_DAY - 721}",
    f"dumpagent_mount_up{{{MOUNT}}}": f"1x{_DAY}",
    f"dumpagent_mount_ready{{{MOUNT}}}": f"1x{_DAY}",
    f"dumpagent_mount_verified_age_seconds{{{MOUNT}}}": f"15x{_DAY}",
    f'dumpagent_mount_losses_total{{{MOUNT},finding="nothing"}}': f"0x{_DAY // 2} 1x{_DAY // 2 - 1}",
    f'dumpagent_volume_state{{{MOUNT},state="writable"}}': f"1x{_DAY}",
    f'dumpagent_volume_state{{{MOUNT},state="full"}}': f"0x{_DAY}",
    f'dumpagent_volume_state{{{MOUNT},state="hung"}}': f"0x{_DAY}",
    f'dumpagent_trouble{{{MOUNT},trouble="remount"}}': f"0x{_DAY}",
    f'dumpagent_trouble{{{MOUNT},trouble="unshared"}}': f"0x{_DAY}",
    f'dumpagent_trouble{{{UPLOAD},trouble="watch"}}': f"0x{_DAY}",
    f'dumpagent_trouble{{{UPLOAD},trouble="space"}}': f"0x{_DAY}",
    f'dumpagent_trouble{{{UPLOAD},trouble="state"}}': f"0x{_DAY}",
    f"dumpagent_dumps_pending{{{UPLOAD}}}": "0x300 1x4 " * 4 + f"0x{_DAY - 1228}",
    f"dumpagent_dumps_oldest_pending_seconds{{{UPLOAD}}}": "0x300 0+60x4 " * 4 + f"0x{_DAY - 1228}",
    f'dumpagent_dumps_waiting{{{UPLOAD},reason="sending"}}': "0x300 1x4 " * 4 + f"0x{_DAY - 1228}",
    f"dumpagent_sent_bytes_total{{{UPLOAD}}}": "0x304 " + f"1000000x{_DAY - 305}",
    f'dumpagent_upload_failures_total{{{UPLOAD},fault="store"}}': f"0x400 1x{_DAY - 401}",
    f'dumpagent_upload_failures_total{{{UPLOAD},fault="dump"}}': f"0x{_DAY}",
    f'dumpagent_dumps_stored_total{{{UPLOAD},verdict="truncated",cause="oom"}}': f"0x{_DAY}",
    f'dumpagent_dumps_stored_total{{{UPLOAD},verdict="complete",cause="oom"}}': f"0x300 1x{_DAY - 301}",
    f"dumpagent_dumps_failed_total{{{UPLOAD}}}": f"0x{_DAY}",
    f"dumpagent_objects_missing_total{{{UPLOAD}}}": f"0x{_DAY}",
    f"dumpagent_agent_faults_total{{{UPLOAD}}}": f"0x{_DAY}",
    f"dumpagent_last_scan_timestamp_seconds{{{UPLOAD}}}": f"0+60x{_DAY}",
    f"dumpagent_scan_unreadable_paths{{{UPLOAD}}}": f"0x{_DAY}",
    f"dumpagent_store_reachable{{{UPLOAD}}}": f"1x{_DAY}",
    f"dumpagent_replica_store_reachable{{{UPLOAD}}}": f"1x400 0x20 1x{_DAY - 421}",
    f"dumpagent_replica_dumps_oldest_pending_seconds{{{UPLOAD}}}": f"0x400 0+60x20 0x{_DAY - 421}",
    f"dumpagent_replica_dumps_failed_total{{{UPLOAD}}}": f"0x{_DAY}",
    f"dumpagent_replica_objects_missing_total{{{UPLOAD}}}": f"0x{_DAY}",
    f"dumpagent_volume_free_bytes{{{UPLOAD}}}": f"60000000000x{_DAY}",
    f"dumpagent_volume_size_bytes{{{UPLOAD}}}": f"100000000000x{_DAY}",
    f'dumpagent_containers_killed_total{{{WATCH},cause="native_memory"}}': f"0x{_DAY}",
    f"dumpagent_largest_dump_bytes{{{UPLOAD}}}": f"0x300 4000000000x{_DAY - 301}",
    # As kube-state-metrics tells of them: a manager, an application that opted in, and one that did not on another node.
    f"kube_pod_info{{{_KUBE_MANAGER}}}": f"1x{_DAY}",
    f'kube_pod_status_ready{{{_KUBE}namespace="heap-dumps",pod="dump-volume-manager-0",condition="true"}}': f"1x{_DAY}",
    f"kube_pod_info{{{_KUBE_APP}}}": f"1x{_DAY}",
    f'kube_pod_init_container_info{{{_KUBE}namespace="shop",pod="cart-0",container="wait-for-volume-manager"}}': f"1x{_DAY}",
    f'kube_pod_status_phase{{{_KUBE}namespace="shop",pod="cart-0",phase="Running"}}': f"1x{_DAY}",
    f'kube_pod_status_phase{{{_KUBE}namespace="shop",pod="cart-0",phase="Succeeded"}}': f"0x{_DAY}",
    f'kube_pod_info{{{_KUBE}namespace="shop",pod="web-0",node="worker-2"}}': f"1x{_DAY}",
    f'kube_pod_status_phase{{{_KUBE}namespace="shop",pod="web-0",phase="Running"}}': f"1x{_DAY}",
}


@dataclass(frozen=True)
class Fault:
    """What the metrics show of a fault from minute 60 on, and which alerts it brings up by minute `at`."""

    name: str
    series: dict[str, str]
    fires: frozenset[str]
    at: int = 100


def _fault(name: str, *fires: str, at: int = 100, **series: str) -> Fault:
    return Fault(name, {_named(key): values for key, values in series.items()}, frozenset(fires), at)


def _named(key: str) -> str:
    """Find the healthy series that `key` names: a metric, or a metric and a label's value."""
    metric, _, label = key.partition("__")
    (found,) = [
        name
        for name in HEALTHY
        if name.startswith(f"dumpagent_{metric}{{") and (not label or f'"{label}"' in name)
    ]
    return found


FAULTS = [
    _fault("mount lost", "DumpVolumeNotMounted", mount_up="1x59 0x60"),
    _fault("mount never made", "DumpVolumeNotMounted", mount_up="NaN " * 120),
    _fault("volume full", "DumpVolumeUnusable", "DumpVolumeNotProven",
           volume_state__full="0x59 1x60", volume_state__writable="1x59 0x60", mount_ready="1x59 0x60"),
    _fault("volume hangs", "DumpVolumeUnusable", "DumpVolumeNotProven",
           volume_state__hung="0x59 1x60", mount_verified_age_seconds="15x59 15+60x60"),
    _fault("write test overdue", "DumpVolumeNotProven", mount_verified_age_seconds="15x59 15+60x60"),
    _fault("mount taken away again and again", "DumpVolumeFlapping", mount_losses_total__nothing="0x59 0+1x60"),
    _fault("less free than two of the largest dump", "DumpVolumeFilling",
           largest_dump_bytes="4000000000x59 40000000000x60"),
    _fault("a tenth free", "DumpVolumeFilling", volume_free_bytes="60000000000x59 9000000000x60"),
    _fault("nothing may be deleted", "DumpVolumeFilling", trouble__space="0x59 1x60"),
    _fault("pending", "DumpPendingTooLong", dumps_oldest_pending_seconds="0x59 0+60x60"),
    _fault("uploads fail", "DumpUploadsFailing", upload_failures_total__store="0x59 0+1x60"),
    _fault("one dump is refused", "DumpUploadsFailing", upload_failures_total__dump="0x59 0+1x60"),
    _fault("upload hangs", "DumpUploadSlow", dumps_waiting__sending="0x29 1x90", at=110),
    _fault("store away", "DumpStoreUnreachable", store_reachable="1x59 0x60"),
    _fault("replica away", "DumpReplicaUnreachable", replica_store_reachable="1x59 0x60"),
    _fault("replica behind", "DumpReplicaBehind",
           replica_dumps_oldest_pending_seconds="0x59 0+60x200", at=200),
    _fault("deleted before the replica had it", "DumpReplicaIncomplete", replica_dumps_failed_total="0x59 1x60"),
    _fault("object of the replica deleted", "DumpReplicaIncomplete", replica_objects_missing_total="0x59 1x60"),
    _fault("replica lacked it before the first scrape", "DumpReplicaIncomplete", replica_dumps_failed_total="_x59 1x60"),
    _fault("truncated", "DumpTruncated", dumps_stored_total__truncated="0x59 1x60"),
    _fault("truncated before the first scrape", "DumpTruncated", dumps_stored_total__truncated="_x59 1x60"),
    _fault("lost before the first scrape", "DumpLost", dumps_failed_total="_x59 1x60"),
    _fault("deleted before it was stored", "DumpLost", dumps_failed_total="0x59 1x60"),
    _fault("object deleted", "DumpObjectMissing", objects_missing_total="0x59 1x60"),
    _fault("scan hangs", "DumpScanStale", last_scan_timestamp_seconds="0+60x59 3540x60"),
    _fault("never scanned", "DumpScanStale", last_scan_timestamp_seconds="0x120"),
    _fault("unreadable", "DumpScanIncomplete", scan_unreadable_paths="0x59 2x60"),
    _fault("inotify limit", "DumpWakeupsMissing", trouble__watch="0x59 1x60"),
    _fault("state unwritable", "DumpAgentTrouble", trouble__state="0x59 1x60"),
    _fault("remount fails", "DumpAgentTrouble", trouble__remount="0x59 1x60"),
    _fault("not shared", "DumpVolumeUnshared", trouble__unshared="0x59 1x60"),
    _fault("own fault", "DumpAgentFaulty", agent_faults_total="0x59 1x60"),
    _fault("killed by the kernel", "DumpNeverWritten", containers_killed_total__native_memory="0x59 1x60"),
    Fault("a heap that does not fit below the limit",
          {f'dumpagent_memory_missing_bytes{{{WATCH},app_namespace="shop",app_pod="a",app_container="app"}}': "_x59 1e8x60"},
          frozenset({"DumpMemoryTight"})),
    Fault("the manager of a node with applications is not ready",
          {f'kube_pod_status_ready{{{_KUBE}namespace="heap-dumps",pod="dump-volume-manager-0",condition="true"}}': "1x59 0x60"},
          frozenset({"DumpNodeUncovered"})),
    Fault("an application starts on a node that nobody covers",
          {f'kube_pod_info{{{_KUBE}namespace="shop",pod="cart-1",node="worker-3"}}': "_x59 1x60",
           f'kube_pod_init_container_info{{{_KUBE}namespace="shop",pod="cart-1",container="wait-for-volume-manager"}}': "_x59 1x60",
           f'kube_pod_status_phase{{{_KUBE}namespace="shop",pod="cart-1",phase="Pending"}}': "_x59 1x60"},
          frozenset({"DumpNodeUncovered"})),
    Fault("agent killed again and again",
          {f"process_start_time_seconds{{{UPLOAD}}}": "1x59 10+60x60"}, frozenset({"DumpAgentRestarting"})),
    Fault("agent silent", {f"up{{{UPLOAD}}}": "1x59 0x60"}, frozenset({"DumpAgentDown"})),
    Fault("uploader gone", {f'dumpagent_build_info{{{UPLOAD},mode="upload",version="1"}}': "1x59 _x60"},
          frozenset({"DumpAgentAbsent"})),
    Fault("manager gone", {f'dumpagent_build_info{{{MOUNT},mode="mount",version="1"}}': "1x59 _x60"},
          frozenset({"DumpAgentAbsent"})),
]  # fmt: skip


def _promtool(tmp_path: Path, tests: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    write_rules(tmp_path / "rules.yaml")
    whole = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(whole, width=10_000))
    return subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )


def _test(series: dict[str, str], expression: str, at: int, samples: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": expression, "eval_time": f"{at}m", "exp_samples": samples}],
    }


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_fires_its_alerts_and_no_others(fault: Fault, tmp_path: Path) -> None:
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in sorted(fault.fires)]
    firing = 'group by (alertname) (ALERTS{alertstate="firing"})'
    said = _promtool(tmp_path, [_test(HEALTHY | fault.series, firing, fault.at, samples)])
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_alert_has_a_fault_that_fires_it() -> None:
    assert {name for fault in FAULTS for name in fault.fires} == {rule["alert"] for rule in rules()}


def test_a_day_without_a_fault_fires_nothing(tmp_path: Path) -> None:
    """24 simulated hours with dumps, a restart, one failed attempt and one remount."""
    ever = 'count_over_time(ALERTS{alertstate="firing"}[24h])'
    said = _promtool(tmp_path, [_test(HEALTHY, ever, _DAY, [])])
    assert said.returncode == 0, said.stdout + said.stderr


def test_an_alert_names_its_node(tmp_path: Path) -> None:
    test = _test(HEALTHY | FAULTS[0].series, "vector(1)", 0, [{"labels": "{}", "value": 1}])
    rule = rules()[0]
    labels = {"alertname": rule["alert"], "severity": "critical", "job": "dumpagent", "node": "worker-1",
              "pod": "dump-volume-manager-0"}  # fmt: skip
    annotations = {
        name: text.replace("{{ $labels.node }}", "worker-1") for name, text in rule["annotations"].items()
    }
    alerts = [
        {"exp_labels": {k: v for k, v in labels.items() if k != "alertname"}, "exp_annotations": annotations}
    ]
    test["alert_rule_test"] = [{"eval_time": "90m", "alertname": rule["alert"], "exp_alerts": alerts}]
    said = _promtool(tmp_path, [test])
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on() -> None:
    """And its runbook says: what is at risk, how to find out, how to mend it."""
    runbooks = (REPOSITORY / "docs" / "runbooks.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", runbooks, re.MULTILINE | re.DOTALL))
    assert set(sections) == {rule["alert"] for rule in rules()}
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
        assert rule["annotations"]["runbook_url"] == runbook_url(rule["alert"])
        for part in ("**At risk:**", "**Find out:**", "**Mend:**"):
            assert part in sections[rule["alert"]], f"{rule['alert']} lacks {part}"


def test_every_metric_that_a_rule_asks_for_exists() -> None:
    golden = REPOSITORY / "tests" / "unit" / "observe" / "golden"
    known = "".join(
        (golden / f"{mode}.txt").read_text() for mode in ("mount", "upload", "replica", "memory-watch")
    )
    for rule in rules():
        for metric in re.findall(r"\bdumpagent_\w+", rule["expr"]):
            assert re.search(rf"^{metric}[ {{]", known, re.MULTILINE), metric
