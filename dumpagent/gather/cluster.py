"""What the API server knows of one namespace: pods, events, and the logs of the agent's pods."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from dumpagent.dumps.text import iso_time
from dumpagent.gather.collector import Desk
from dumpagent.gather.manifest import event_time, event_without_rest, is_ours, pod_without_secrets

_MOST_PODS, _MOST_EVENTS, _MOST_LOGS = 500, 1000, 40
_LOG_LINES, _LOG_BYTES = 5000, 1 << 20


class Cluster(Protocol):
    """Answers as `ApiServer` does."""

    def ask(self, method: str, path: str) -> dict[str, Any]: ...

    def text(self, path: str) -> str: ...


def namespace_of(environ: Mapping[str, str], account: str) -> str:
    """Give the namespace of this pod; empty if it cannot be known."""
    try:
        with open(f"{account}/namespace", encoding="utf-8") as file:
            return file.read(256).strip()
    except OSError:
        return environ.get("POD_NAMESPACE", "")


def how_to_get_logs(desk: Desk, namespace: str, pod: str, since_s: float) -> None:
    """Say how a person gets the log: without a token nobody in a container can read it."""
    where = f"-n {namespace} " if namespace else ""
    name = pod or "POD"
    desk.add(
        "log.txt",
        "No token of a service account is mounted here, so the log cannot be read from inside. Send with this archive:\n"
        f"  kubectl logs {where}{name} --all-containers --since={int(since_s)}s > log.txt\n"
        f"  kubectl logs {where}{name} --all-containers --previous > log-previous.txt\n",
    )


def objects(desk: Desk, cluster: Cluster, namespace: str, since: float) -> None:
    """Add pods and events of the namespace, and the logs of the agent's pods since `since` (seconds since the epoch)."""
    below = f"/api/v1/namespaces/{quote(namespace, safe='')}"
    pods: list[dict[str, Any]] = []
    desk.attempt("pods", lambda: pods.extend(_items(desk, cluster, f"{below}/pods", _MOST_PODS)))
    if pods:
        shown = [pod_without_secrets(pod) for pod in pods]
        desk.add("pods.json", json.dumps(shown, indent=1) + "\n")
    desk.attempt("events", lambda: _events(desk, cluster, below, since))
    names = [pod for pod in pods if is_ours(pod)]
    own = os.environ.get("POD_NAME", "")
    if not names and own:
        names = [{"metadata": {"name": own}}]
    logs = [(pod, container) for pod in names for container in _containers(pod)]
    if len(logs) > _MOST_LOGS:
        desk.miss(f"logs of {_MOST_LOGS} of {len(logs)} containers are in the archive")
    for pod, (container, restarted) in logs[:_MOST_LOGS]:
        name = str(pod["metadata"]["name"])
        for previous in (False, True) if restarted else (False,):
            what = f"log of {name} {container}{' before its restart' if previous else ''}"
            desk.attempt(
                what, functools.partial(_log, desk, cluster, below, name, container, previous, since)
            )


def metrics(desk: Desk, cluster: Cluster, namespace: str, port: int) -> None:
    """Add what each of the agent's pods answers for /metrics, asked through the API server."""
    below = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods"
    for pod in _items(desk, cluster, below, _MOST_PODS):
        if is_ours(pod):
            name = str(pod["metadata"]["name"])
            path = f"{below}/{quote(name, safe='')}:{port}/proxy/metrics"
            desk.attempt(f"metrics of {name}", functools.partial(_metrics_of, desk, cluster, name, path))


def _metrics_of(desk: Desk, cluster: Cluster, pod: str, path: str) -> None:
    desk.add(f"metrics/{_file(pod)}.txt", cluster.text(path))


def _items(desk: Desk, cluster: Cluster, path: str, most: int) -> list[dict[str, Any]]:
    answer = cluster.ask("GET", f"{path}?limit={most}")
    if (answer.get("metadata") or {}).get("continue"):
        desk.miss(f"{path}: only {most} are in the archive")
    return [each for each in answer.get("items") or () if isinstance(each, dict)]


def _events(desk: Desk, cluster: Cluster, below: str, since: float) -> None:
    first = iso_time(since) or ""
    events = _items(desk, cluster, f"{below}/events", _MOST_EVENTS)
    recent = sorted((each for each in events if event_time(each) >= first), key=event_time)
    desk.add("events.jsonl", "".join(json.dumps(event_without_rest(each)) + "\n" for each in recent))


def _containers(pod: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """Give the names of a pod's containers, and whether each was restarted; one without a name where none is known."""
    status = pod.get("status") or {}
    found = [
        (str(each.get("name")), bool(each.get("restartCount")))
        for kind in ("initContainerStatuses", "containerStatuses") for each in status.get(kind) or ()
    ]  # fmt: skip
    return found or [("", False)]


def _log(
    desk: Desk, cluster: Cluster, below: str, pod: str, container: str, previous: bool, since: float
) -> None:
    wanted = {"tailLines": str(_LOG_LINES), "limitBytes": str(_LOG_BYTES), "timestamps": "true"}
    wanted |= {"container": container} if container else {}
    wanted |= {"previous": "true"} if previous else {"sinceTime": iso_time(since) or "1970-01-01T00:00:00Z"}
    text = cluster.text(f"{below}/pods/{quote(pod, safe='')}/log?{urlencode(wanted)}")
    file = "-".join(_file(each) for each in (pod, container, "previous" if previous else "") if each)
    desk.add(f"logs/{file}.txt", text or "(empty)\n")


def _file(name: str) -> str:
    """Give a name that stays inside the archive."""
    return "".join(each if each.isalnum() or each in "-_" else "-" for each in name)[:100]
