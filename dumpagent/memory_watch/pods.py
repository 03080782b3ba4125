"""Which pod a cgroup belongs to, by the cluster's API server: names, containers, and whether it uses the dump volume."""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dumpagent.notify.api_server import Ask


@dataclass(frozen=True, slots=True)
class PodSpec:
    """What the API server says of a pod of this node; `containers` are specs by the runtime's container id."""

    uid: str
    namespace: str
    name: str
    uses_volume: bool
    specs: tuple[Mapping[str, Any], ...] = ()
    containers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    killed: frozenset[str] = frozenset()  # ids of containers that the runtime reports as OOMKilled


def list_pods(ask: Ask, node: str, volume: str) -> dict[str, PodSpec]:
    """Give the pods of this node by uid. `volume` is the node's dump directory. Raises Refused, Unreachable."""
    selector = urllib.parse.quote(f"spec.nodeName={node}", safe="")
    # resourceVersion=0: out of the API server's cache. Source: Kubernetes, API concepts, "Resource versions".
    found = ask("GET", f"/api/v1/pods?fieldSelector={selector}&resourceVersion=0", None)
    specs = (_pod(item, volume) for item in found.get("items") or ())
    return {pod.uid: pod for pod in specs}


def _pod(item: Mapping[str, Any], volume: str) -> PodSpec:
    metadata, spec, status = item.get("metadata") or {}, item.get("spec") or {}, item.get("status") or {}
    by_name = {str(each.get("name")): each for each in spec.get("containers") or ()}
    containers: dict[str, Mapping[str, Any]] = {}
    killed = set()
    for each in status.get("containerStatuses") or ():
        container = by_name.get(str(each.get("name")), {})
        for state in (each.get("state") or {}, each.get("lastState") or {}):
            for phase in state.values():
                container_id = _id((phase or {}).get("containerID"))
                if container_id:
                    containers[container_id] = container
                    if (phase or {}).get("reason") == "OOMKilled":
                        killed.add(container_id)
        if container_id := _id(each.get("containerID")):
            containers[container_id] = container
    return PodSpec(
        # A static pod's cgroup is named after its hash. Source: Kubernetes, pkg/kubelet/types, ConfigHashAnnotationKey.
        uid=str(
            (metadata.get("annotations") or {}).get("kubernetes.io/config.hash") or metadata.get("uid") or ""
        ),
        namespace=str(metadata.get("namespace") or ""),
        name=str(metadata.get("name") or ""),
        uses_volume=any(
            _shows((each.get("hostPath") or {}).get("path"), volume) for each in spec.get("volumes") or ()
        ),
        specs=tuple(by_name.values()),
        containers=containers,
        killed=frozenset(killed),
    )


def _id(text: object) -> str:
    return str(text).rpartition("//")[2] if text else ""  # cri-o://<id>, containerd://<id>


def _shows(path: object, volume: str) -> bool:
    """Say whether a hostPath shows the volume: it is its directory, a parent or something in it."""
    if not path:
        return False
    there = str(path).rstrip("/") or "/"
    return there != "/" and (f"{volume}/".startswith(f"{there}/") or there.startswith(f"{volume}/"))
