"""The metrics of mount mode."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from prometheus_client import Histogram

from dumpagent.observe.events import Event
from dumpagent.observe.events.daemon import ChildRefused, ChildStarted, HeartbeatFailed, HeartbeatRecovered
from dumpagent.observe.events.mount import (
    FileRescued,
    MountAdopted,
    MountBound,
    MountLost,
    MountReadOnly,
    MountReleased,
    MountRestored,
    MountSetAside,
    MountStacked,
    MountUnshared,
    MountWrong,
    RemountFailed,
    RemountRecovered,
    RescueFailed,
    RescueRecovered,
    TableReadable,
    TableUnreadable,
    WriteTested,
)  # fmt: skip
from dumpagent.observe.metrics.daemon import DaemonMetrics, Lasting

_WRITE_TEST_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 10)
_LASTING: Lasting = {
    "child": ((ChildRefused,), (ChildStarted,)),
    "heartbeat": ((HeartbeatFailed,), (HeartbeatRecovered,)),
    "remount": ((RemountFailed,), (RemountRecovered,)),
    "rescue": ((RescueFailed,), (RescueRecovered,)),
    "table": ((TableUnreadable,), (TableReadable,)),
    "unshared": ((MountUnshared,), ()),
}
_VOLUME_STATES = (
    "writable", "full", "read-only", "refusing", "dead", "missing", "stale-target", "hung", "unknown",
)  # fmt: skip
_LOST: dict[type[Event], str] = {
    MountLost: "nothing",
    MountWrong: "another",
    MountStacked: "stacked",
    MountReadOnly: "read-only",
    MountSetAside: "set-aside",
}


class MountMetrics(DaemonMetrics):
    """Counts what mount mode tells of."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__("mount", _LASTING, monotonic)
        self._up = self._gauge(
            "dumpagent_mount_up", "1 if the target shows the volume, 0 if not; NaN: not known yet"
        )
        self._up.set(math.nan)
        self._ready = self._gauge(
            "dumpagent_mount_ready", "1 while writes through the target are proven to reach the volume"
        )
        self._proven_at: float | None = None
        age = self._gauge(
            "dumpagent_mount_verified_age_seconds",
            "time since a write through the target last reached the volume; NaN: never",
        )
        age.set_function(lambda: math.nan if self._proven_at is None else self._monotonic() - self._proven_at)
        self._losses = self._counter(
            "dumpagent_mount_losses_total", "how often the target stopped showing the volume", ["finding"]
        )
        for finding in _LOST.values():
            self._losses.labels(finding)
        self._remounts = self._counter(
            "dumpagent_mount_remounts_total", "how often the volume was bound again"
        )
        self._remount_failures = self._counter(
            "dumpagent_mount_remount_failures_total", "how often binding the volume again failed, at least"
        )
        self._volume = self._gauge(
            "dumpagent_volume_state", "1 for what the last write test found the volume to be", ["state"]
        )
        for state in _VOLUME_STATES:
            self._volume.labels(state).set(0)
        self._write_test = Histogram(
            "dumpagent_mount_write_test_seconds",
            "time that a write test took which reached the volume",
            buckets=_WRITE_TEST_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._write_test_failures = self._counter(
            "dumpagent_mount_write_test_failures_total", "write tests that did not reach the volume"
        )
        self._rescued = self._counter(
            "dumpagent_rescued_files_total", "files moved from the node's own disk into the volume"
        )
        self._rescue_failures = self._counter(
            "dumpagent_rescue_failures_total", "how often a file could not be moved into the volume, at least"
        )

    def _count(self, event: Event) -> None:
        if isinstance(event, (MountBound, MountAdopted, MountRestored)):
            self._up.set(1)
            if isinstance(event, MountRestored):
                self._remounts.inc()
        elif type(event) in _LOST or isinstance(event, MountReleased):
            self._up.set(0)
            self._ready.set(0)
            if type(event) in _LOST:
                self._losses.labels(_LOST[type(event)]).inc()
        elif isinstance(event, WriteTested):
            self._tested(event)
        elif isinstance(event, RemountFailed):
            self._remount_failures.inc()
        elif isinstance(event, FileRescued):
            self._rescued.inc()
        elif isinstance(event, RescueFailed):
            self._rescue_failures.inc()

    def _tested(self, event: WriteTested) -> None:
        for state in _VOLUME_STATES:
            self._volume.labels(state).set(state == event.outcome)
        if event.outcome == "writable":
            self._write_test.observe(event.seconds)
        else:
            self._write_test_failures.inc()
        proven = event.outcome == "writable" and event.through_target
        self._ready.set(proven)
        if proven:
            self._proven_at = self._monotonic()
