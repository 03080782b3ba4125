"""The uid of a pod by its name, from the cluster's API server."""

from __future__ import annotations

import re

from dumpagent.errors import Refused
from dumpagent.notify.api_server import Ask

UID = re.compile(r"[0-9a-f]{4,}(?:[-_][0-9a-f]+)*")


def uid_of(ask: Ask, namespace: str, name: str, node: str) -> str:
    """Give the uid that the pod's cgroup is named after. Raises Refused if it is not on `node`, or as `ask` does."""
    found = ask("GET", f"/api/v1/namespaces/{namespace}/pods/{name}", None)
    metadata, spec = found.get("metadata") or {}, found.get("spec") or {}
    where = str(spec.get("nodeName") or "")
    if node and where != node:
        raise Refused(
            f"{namespace}/{name} runs on {where or 'no node yet'}, not on {node}",
            hint="call it in the trigger's pod of that node (docs/trigger.md)",
        )
    # A static pod's cgroup is named after its hash. Source: Kubernetes, pkg/kubelet/types, ConfigHashAnnotationKey.
    annotations = metadata.get("annotations") or {}
    uid = str(annotations.get("kubernetes.io/config.hash") or metadata.get("uid") or "")
    if not UID.fullmatch(uid):
        raise Refused(f"the API server gave no usable uid: {uid[:80]!r}", hint="name it with --pod-uid")
    return uid
