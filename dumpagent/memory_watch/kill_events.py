"""Puts a Kubernetes Event on a pod whose container was killed: `kubectl describe pod` then says why."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Callable, Mapping
from typing import Any

from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.notify.api_server import AlreadyThere, Ask, NotThere
from dumpagent.notify.pod_event import InvolvedPod, Reporter
from dumpagent.observe.barrier import Barrier, repeat
from dumpagent.observe.events import Event, Tell
from dumpagent.observe.events.memory import ContainerKilled, KillEventFailed, KillEventRecovered
from dumpagent.observe.incident import Incident

_ATTEMPTS, _RETRY_S = 5, 5.0


class KillEvents:
    """Listens for kills, and makes their Events in a thread for which nobody waits."""

    def __init__(
        self, ask: Ask, *, node: str, agent: str, tell: Tell, now: Callable[[], float] = time.time
    ) -> None:
        self._ask, self._reporter, self._now = ask, Reporter(node, agent), now
        self._incident = Incident(tell, KillEventFailed, KillEventRecovered)
        self._heard: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()

    def __call__(self, event: Event, /) -> None:
        """Take note of an event; costs a few microseconds."""
        if isinstance(event, ContainerKilled) and event.pod:
            self._heard.put(event.fields())

    def start(self, stopped: Callable[[], bool], *, barrier: Barrier) -> None:
        """Make Events in a thread of its own until `stopped()`."""

        def step() -> None:
            with contextlib.suppress(queue.Empty):
                self.make(self._heard.get(timeout=1.0), stopped)

        repeat("kill-events", step, stopped=stopped, barrier=barrier)

    def make(self, kill: Mapping[str, Any], stopped: Callable[[], bool] = lambda: False) -> None:
        """Make the Event of one kill, trying again for half a minute; then it is left out, and told so."""
        body = self.event(kill)
        path = f"/api/v1/namespaces/{kill['namespace']}/events"
        for attempt in range(_ATTEMPTS):
            try:
                self._ask("POST", path, body)
                break
            except (AlreadyThere, NotThere):
                break  # an answer was lost on its way; or the namespace is gone
            except Unreachable as error:
                self._failed(error, kill)
                if stopped() or attempt + 1 == _ATTEMPTS:
                    return
                time.sleep(_RETRY_S)
            except DumpagentError as error:
                self._failed(error, kill)
                return
        self._incident.ended_for("api", KillEventRecovered())

    def _failed(self, error: DumpagentError, kill: Mapping[str, Any]) -> None:
        hint = error.hint or "apply manifests/memory-watch"
        self._incident.failed(
            "api", KillEventFailed(error=str(error), namespace=kill["namespace"], pod=kill["pod"], hint=hint)
        )

    def event(self, kill: Mapping[str, Any]) -> dict[str, Any]:
        """Give the Event of one kill."""
        now = self._now()
        pod = InvolvedPod(kill["namespace"], str(kill["pod"]), kill["uid"], kill.get("container") or "")
        text = (
            f"Killed for its memory without a heap dump ({kill['cause']}): {kill['reason']}. {kill['hint']}"
        )
        about = f"{kill['uid']} {kill.get('container_id')} {now}"
        return self._reporter.event(
            pod, about=about, reason="KilledWithoutHeapDump", message=text, kind="Warning", now=now
        )
