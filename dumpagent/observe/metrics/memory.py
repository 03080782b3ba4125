"""The metrics of the memory watch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from dumpagent.observe.events import Event
from dumpagent.observe.events.daemon import HeartbeatFailed, HeartbeatRecovered
from dumpagent.observe.events.memory import (
    CgroupsReadable,
    CgroupsUnreadable,
    ContainerKilled,
    KillEventFailed,
    KillEventRecovered,
    KillLeftDump,
    MemoryEased,
    MemoryLooked,
    MemoryTight,
    PidsLimitReached,
    PodsListed,
    PodsUnlisted,
)
from dumpagent.observe.events.notify import NotifyFailed, NotifyRecovered
from dumpagent.observe.metrics.daemon import DaemonMetrics, Lasting

_CAUSES = ("heap_above_limit", "native_memory", "other_process", "shared_memory", "unknown")
_LASTING: Lasting = {
    "cgroups": ((CgroupsUnreadable,), (CgroupsReadable,)),
    "pods": ((PodsUnlisted,), (PodsListed,)),
    "heartbeat": ((HeartbeatFailed,), (HeartbeatRecovered,)),
    "notify": ((NotifyFailed,), (NotifyRecovered,)),
    "pod-events": ((KillEventFailed,), (KillEventRecovered,)),
}


class MemoryWatchMetrics(DaemonMetrics):
    """Counts what the memory watch tells of."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__("memory-watch", _LASTING, monotonic)
        self._kills = self._counter(
            "dumpagent_containers_killed_total",
            "containers that the kernel killed for their memory without a heap dump",
            ["cause"],
        )
        for cause in _CAUSES:
            self._kills.labels(cause)
        self._dumped = self._counter(
            "dumpagent_kills_with_dump_total", "containers that the kernel killed after a heap dump was begun"
        )
        self._refused = self._counter(
            "dumpagent_threads_refused_total",
            "threads and processes that pids.max refused: a JVM then throws an OutOfMemoryError without a heap dump",
        )
        self._pods = self._gauge("dumpagent_memory_watched_pods", "pods whose memory is watched")
        self._tight = self._gauge(
            "dumpagent_memory_tight_containers",
            "containers whose heap and usual native memory do not fit below their limit",
        )
        self._missing = self._gauge(
            "dumpagent_memory_missing_bytes",
            "by how much a container's limit is below its heap and usual native memory; only of those that are tight",
            [
                "app_namespace",
                "app_pod",
                "app_container",
            ],  # some hundred on a node at most; their series end with them
        )

    def _count(self, event: Event) -> None:
        if isinstance(event, ContainerKilled):
            self._kills.labels(event.cause).inc()
        elif isinstance(event, KillLeftDump):
            self._dumped.inc()
        elif isinstance(event, PidsLimitReached):
            self._refused.inc(event.refused)
        elif isinstance(event, MemoryTight):
            missing = event.heap_bytes + event.native_bytes - event.limit_bytes
            self._missing.labels(event.namespace, event.pod, event.container).set(missing)
        elif isinstance(event, MemoryEased):
            with contextlib.suppress(KeyError):
                self._missing.remove(event.namespace, event.pod, event.container)
        elif isinstance(event, MemoryLooked):
            self._pods.set(event.pods)
            self._tight.set(event.tight)
