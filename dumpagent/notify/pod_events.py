"""Puts a Kubernetes Event on the pod that wrote a stored dump: `kubectl describe pod` then says where the dump is.

The volume does not say who wrote a file. A pod is believed to be the writer only if the dump's path names it (as
`<namespace>_<pod>`), and the API server knows a pod of that name that runs on this node and is older than the dump.
From a thread for which nobody waits; what a restart cuts off is not told again, and an Event is not told twice.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dumpagent.dumps.names import dump_of_segment
from dumpagent.dumps.owner import owner_of
from dumpagent.dumps.text import size_text
from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.notify.api_server import AlreadyThere, Ask, Forbidden, NotThere
from dumpagent.notify.commands import fetch_command
from dumpagent.notify.pod_event import InvolvedPod, Reporter
from dumpagent.observe.barrier import Barrier, repeat
from dumpagent.observe.events import Event, Tell
from dumpagent.observe.events.dumps import DumpSummarised, DumpUploaded
from dumpagent.observe.events.notify import PodEventFailed, PodEventMade, PodEventRecovered, PodEventSkipped
from dumpagent.observe.incident import Incident

_MOST_WAITING = 100
_ATTEMPTS = 6  # over two minutes; an Event about something long ago helps nobody
_FIRST_RETRY_S, _LONGEST_RETRY_S = 4.0, 60.0


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod by its name, which another one may bear later."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class _Due:
    pod: Pod
    dump: DumpUploaded | DumpSummarised
    tries: int = 0


class Uncertain(Exception):
    """The pod cannot be known for certain to have written the dump; the text says why."""


def writer_named_by(relpath: str) -> Pod | None:
    """Give the pod that a dump's path below DUMP_ROOT names, None if it names none.

    The API server is asked whether there is such a pod: a path alone is a claim of whoever made it.
    """
    owner = owner_of(relpath)
    if owner.namespace is None or owner.pod is None or dump_of_segment(relpath) or ".." in relpath.split("/"):
        return None  # a segment file's dump has an Event of its own
    return Pod(owner.namespace, owner.pod)


class PodEvents:
    """Listens for stored dumps and makes their Events. `turn` is one step of its thread."""

    def __init__(
        self,
        ask: Ask,
        *,
        root: str,
        node: str,
        agent: str,
        tell: Tell,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._root, self._node, self._tell = ask, root, node, tell
        self._reporter = Reporter(node, agent)
        self._now, self._monotonic = now, monotonic
        self._incident = Incident(tell, PodEventFailed, PodEventRecovered, monotonic=monotonic)
        self._heard: queue.SimpleQueue[DumpUploaded | DumpSummarised] = queue.SimpleQueue()
        self._waiting: deque[_Due] = deque(maxlen=_MOST_WAITING)
        self._not_before = 0.0

    def __call__(self, event: Event, /) -> None:
        """Take note of an event; costs a few microseconds."""
        if isinstance(event, (DumpUploaded, DumpSummarised)):
            self._heard.put(event)

    def start(self, stopped: Callable[[], bool], *, barrier: Barrier) -> threading.Thread:
        """Make Events in a thread of its own until `stopped()`."""
        return repeat("pod events", lambda: self.turn(wait_s=1.0), stopped=stopped, barrier=barrier)

    def turn(self, *, wait_s: float = 0.0) -> None:
        """Hear what has come, waiting up to `wait_s` for it, and make the Events that are due."""
        try:
            self._take(self._heard.get(timeout=wait_s) if wait_s else self._heard.get_nowait())
            while True:
                self._take(self._heard.get_nowait())
        except queue.Empty:
            pass
        while self._waiting and self._monotonic() >= self._not_before:
            self._make(self._waiting.popleft())

    def _take(self, dump: DumpUploaded | DumpSummarised) -> None:
        pod = writer_named_by(dump.path.removeprefix(self._root + "/"))
        if pod:
            self._waiting.append(_Due(pod, dump))
        elif isinstance(dump, DumpUploaded):
            self._tell(PodEventSkipped(path=dump.path, reason="its path names no pod"))

    def _make(self, due: _Due) -> None:
        pod, path, namespace, name = due.pod, due.dump.path, due.pod.namespace, due.pod.name
        skipped = functools.partial(PodEventSkipped, path=path, namespace=namespace, pod=name)
        failed = functools.partial(PodEventFailed, path=path, namespace=namespace, pod=name)
        try:
            found = self._ask("GET", f"/api/v1/namespaces/{namespace}/pods/{name}", None)
            event = self._event(pod, self._uid(found, due.dump), due.dump)
            self._ask("POST", f"/api/v1/namespaces/{namespace}/events", event)
        except NotThere:
            self._tell(skipped(reason="there is no such pod (any more)"))
        except Uncertain as error:
            self._tell(skipped(reason=str(error)))
        except AlreadyThere:
            pass  # an answer was lost on its way
        except Unreachable as error:
            self._incident.failed("api", failed(error=str(error), hint=error.hint or None))
            self._not_before = self._monotonic() + min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2**due.tries)
            if due.tries + 1 < _ATTEMPTS:
                self._waiting.appendleft(replace(due, tries=due.tries + 1))
            return
        except Forbidden as error:
            hint = f"apply the Role and RoleBinding of manifests/pod-events to the namespace {namespace}"
            # The server's words name the pod: to be told once of a namespace, they stand beside.
            text = f"this pod's service account may not get pods and create events in {namespace}"
            self._incident.failed(namespace, failed(error=text, reason=str(error), hint=hint))
        except DumpagentError as error:
            text = f"the API server refuses an Event in {namespace}"
            self._incident.failed(namespace, failed(error=text, reason=str(error), hint=error.hint or None))
        else:
            self._tell(PodEventMade(path=path, namespace=namespace, pod=name))
            self._incident.ended_for(namespace, PodEventRecovered(path=path, namespace=namespace, pod=name))
        self._incident.ended_for("api", PodEventRecovered())  # it has answered

    def _uid(self, pod: Mapping[str, Any], dump: DumpUploaded | DumpSummarised) -> str:
        """Give the pod's uid if it can have written the dump. Raises Uncertain."""
        metadata = dict(pod.get("metadata") or {})
        node = str(dict(pod.get("spec") or {}).get("nodeName") or "")
        made, dumped = str(metadata.get("creationTimestamp") or ""), dump.dump_time or ""
        if not metadata.get("uid"):
            raise Uncertain("the API server gave no uid")
        if node != self._node:
            raise Uncertain(
                f"the pod of that name runs on {node or 'no node'}, the dump is from {self._node}"
            )
        if not dumped:
            raise Uncertain("the dump does not say when it was made")
        if not made or made > dumped:  # both are RFC 3339 in UTC with seconds
            raise Uncertain(f"the pod of that name was made at {made}, after the dump")
        return str(metadata["uid"])

    def _event(self, pod: Pod, uid: str, dump: DumpUploaded | DumpSummarised) -> dict[str, Any]:
        about = f"{dump.key}\0{dump.crc32}" + ("\0summary" if isinstance(dump, DumpSummarised) else "")
        reason, text, kind = _said_of(dump)
        involved = InvolvedPod(pod.namespace, pod.name, uid)
        return self._reporter.event(
            involved, about=about, reason=reason, message=text, kind=kind, now=self._now()
        )


def _said_of(dump: DumpUploaded | DumpSummarised) -> tuple[str, str, Literal["Normal", "Warning"]]:
    """Give the reason, message and type of the Event."""
    if isinstance(dump, DumpSummarised):
        return "HeapDumpSummarised", f"Heap dump of {dump.dump_time}: " + "; ".join(dump.lines), "Normal"
    cut = dump.verdict == "truncated"
    text = f"{'TRUNCATED heap' if cut else 'Heap'} dump of {size_text(dump.size_bytes)}, {dump.dump_time}"
    text += f" ({dump.reason})" if cut else ""
    text += f", is in the store: {fetch_command(dump.key)}"
    return ("HeapDumpTruncated", text, "Warning") if cut else ("HeapDumpStored", text, "Normal")
