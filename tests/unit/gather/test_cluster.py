"""Pods, events and logs from the API server, without the values that an application has in its variables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dumpagent.errors import Refused
from dumpagent.gather import cluster
from dumpagent.gather.collector import Collected, Collector, collect
from dumpagent.notify.api_server import ApiServer
from tests.harness.api_server import Cluster, status

OURS: dict[str, Any] = {
    "metadata": {
        "name": "uploader-0", "labels": {"app.kubernetes.io/part-of": "dumpagent"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "s3cr3t"}, "managedFields": ["s3cr3t"],
    },
    "spec": {
        "nodeName": "worker-1",
        "containers": [
            {
                "name": "uploader", "image": "dumpagent:0.2",
                "args": ["upload", "--notify-url", "https://s3cr3t", "--notify-url=https://s3cr3t", "--s3-bucket=dumps"],
                "env": [
                    {"name": "S3_BUCKET", "value": "dumps"}, {"name": "NOTIFY_URL", "value": "https://s3cr3t"},
                    {"name": "AWS_SECRET_ACCESS_KEY", "value": "s3cr3t"}, {"name": "MY_PASSWORD", "value": "s3cr3t"},
                    {"name": "HTTPS_PROXY", "value": "http://s3cr3t@proxy"},
                    {"name": "AWS_ACCESS_KEY_ID", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "id"}}},
                ],
            }
        ],
    },
    "status": {"phase": "Running", "containerStatuses": [{"name": "uploader", "restartCount": 1}]},
}  # fmt: skip
FOREIGN: dict[str, Any] = {
    "metadata": {"name": "checkout", "annotations": {"x": "s3cr3t"}},
    "spec": {"containers": [{"name": "app", "image": "shop:1", "command": ["java", "-Dkey=s3cr3t"], "env": [{"name": "A", "value": "s3cr3t"}]}]},
    "status": {"phase": "Running", "containerStatuses": [{"name": "app", "lastState": {"terminated": {"exitCode": 3, "message": "s3cr3t"}}}]},
}  # fmt: skip
EVENTS = [
    {"message": "old", "lastTimestamp": "2026-01-01T00:00:00Z", "metadata": {"managedFields": ["s3cr3t"]}},
    {"message": "new", "lastTimestamp": "2026-01-03T00:00:00Z", "metadata": {"managedFields": ["s3cr3t"]}},
]
SINCE = 1767312000.0  # 2026-01-02T00:00:00Z


class Answers:
    """A fake API server: gives what is asked for, and notes the paths."""

    def __init__(self, *, logs: bool = True) -> None:
        self.logs = logs

    def ask(self, method: str, path: str) -> dict[str, Any]:
        assert method == "GET"
        return {"items": EVENTS} if "/events" in path else {"items": [OURS, FOREIGN]}

    def text(self, path: str) -> str:
        if not self.logs:
            raise Refused("the API server answered 403", hint="allow pods/log")
        return f"asked {path}\n"


def gathered(answers: Answers) -> Collected:
    return collect(Collector("cluster", lambda desk: cluster.objects(desk, answers, "heap-dumps", SINCE)))


def test_variables_of_others_and_secrets_are_not_in_the_pods() -> None:
    files = gathered(Answers()).files
    assert "s3cr3t" not in "".join(files.values())
    ours, foreign = json.loads(files["pods.json"])
    env = {each["name"]: each.get("value") for each in ours["spec"]["containers"][0]["env"]}
    assert env["S3_BUCKET"] == "dumps"
    assert env["MY_PASSWORD"] == "***"
    assert ours["spec"]["containers"][0]["args"][-1] == "--s3-bucket=dumps"
    assert foreign["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 3
    assert foreign["spec"]["containers"][0]["image"] == "shop:1"


def test_events_are_those_since_the_time_and_logs_those_of_our_pods() -> None:
    files = gathered(Answers()).files
    assert [json.loads(line)["message"] for line in files["events.jsonl"].splitlines()] == ["new"]
    assert "sinceTime=2026-01-02T00%3A00%3A00Z" in files["logs/uploader-0-uploader.txt"]
    assert "previous=true" in files["logs/uploader-0-uploader-previous.txt"]
    assert not [name for name in files if "checkout" in name]


def test_a_token_that_may_not_read_logs_costs_the_logs_alone() -> None:
    found = gathered(Answers(logs=False))
    assert set(found.files) == {"pods.json", "events.jsonl"}
    assert found.gaps[0].what == "log of uploader-0 uploader: the API server answered 403"


def test_metrics_of_each_pod_are_asked_through_the_api_server() -> None:
    found = collect(Collector("m", lambda desk: cluster.metrics(desk, Answers(), "heap-dumps", 9095)))
    assert found.files == {
        "metrics/uploader-0.txt": "asked /api/v1/namespaces/heap-dumps/pods/uploader-0:9095/proxy/metrics\n"
    }


def test_a_real_client_reads_a_log_as_text(tmp_path: Path) -> None:
    with Cluster(tmp_path) as server:
        server.answer = lambda _method, path: (
            (200, {"log": path}) if "log" in path else status(404, "NotFound")
        )
        client = ApiServer(server.address, account=str(server.account))
        assert json.loads(client.text("/api/v1/namespaces/a/pods/b/log")) == {
            "log": "/api/v1/namespaces/a/pods/b/log"
        }
        found = collect(Collector("c", lambda desk: cluster.objects(desk, client, "a", SINCE)))
        assert [gap.what.split(" (")[0] for gap in found.gaps[:2]] == [
            "pods: the API server answered 404 NotFound", "events: the API server answered 404 NotFound",
        ]  # fmt: skip
        server.shutdown()
