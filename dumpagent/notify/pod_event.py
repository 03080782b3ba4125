"""A Kubernetes Event about a pod, as the API server accepts it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

from dumpagent.dumps.text import iso_time
from dumpagent.observe.log import printable

_MESSAGE_BYTES = 1024  # Source: Kubernetes, pkg/apis/core/validation/events.go, NoteLengthLimit
_AGENT_CHARACTERS = 128  # Source: the same, ReportingInstanceLengthLimit


@dataclass(frozen=True, slots=True)
class InvolvedPod:
    """The pod, and if it is known the container, that an Event is about."""

    namespace: str
    name: str
    uid: str
    container: str = ""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports Events: the agent's pod, on its node."""

    node: str
    agent: str

    def event(
        self,
        pod: InvolvedPod,
        *,
        about: str,
        reason: str,
        message: str,
        kind: Literal["Normal", "Warning"],
        now: float,
    ) -> dict[str, Any]:
        """Give the Event's object; `now` in seconds since the epoch.

        The same `about` gives the same name, so that an Event is not made twice. Source: Kubernetes API, core/v1 Event.
        """
        involved = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
        }
        if pod.container:
            involved["fieldPath"] = f"spec.containers{{{pod.container}}}"
        unique = hashlib.sha256(about.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{pod.name[:200].rstrip('.-')}.{unique}", "namespace": pod.namespace},
            "involvedObject": involved,
            "reason": reason,
            "message": str(printable(message)).encode()[:_MESSAGE_BYTES].decode(errors="ignore"),
            "type": kind,
            "source": {"component": "dumpagent", "host": self.node},
            "reportingComponent": "dumpagent",
            "reportingInstance": self.agent[:_AGENT_CHARACTERS],
            "firstTimestamp": iso_time(now),
            "lastTimestamp": iso_time(now),
            "count": 1,
        }
