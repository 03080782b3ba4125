"""What Prometheus is told of a daemon: listeners that count events, and what is read from the daemon at each scrape.

Every name is declared once, below; labels come from closed sets, never from the volume.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector, CollectorRegistry

from dumpagent import __version__
from dumpagent.dumps.model import Cause, State
from dumpagent.observe import events as ev
from dumpagent.observe.events import Event

# Uploads: 10 MB on a fast line to 100 GB on a slow one.
_UPLOAD_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_DELAY_BUCKETS_S = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600)
_WRITE_TEST_BUCKETS_S = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 10)

# Troubles that last: what begins each, and what ends it. `dumpagent_trouble` is 1 in between.
_TROUBLES: dict[str, tuple[tuple[Event, ...], tuple[Event, ...]]] = {
    "claim": ((ev.CLAIM_FAILED,), (ev.CLAIM_RECOVERED,)),
    "delete": ((ev.DELETE_FAILED,), (ev.DELETE_RECOVERED,)),
    "heartbeat": ((ev.HEARTBEAT_FAILED,), (ev.HEARTBEAT_RECOVERED,)),
    "other_agent": ((ev.OTHER_AGENT_FOUND,), (ev.OTHER_AGENT_GONE,)),
    "space": ((ev.VOLUME_FULL,), (ev.VOLUME_ROOMY,)),
    "state": ((ev.STATE_UNWRITABLE,), (ev.STATE_WRITABLE,)),
    "watch": ((ev.WATCH_LIMITED, ev.WATCH_UNAVAILABLE), ()),  # until the daemon is started again
}
_MOUNT_TROUBLES: dict[str, tuple[tuple[Event, ...], tuple[Event, ...]]] = {
    "child": ((ev.CHILD_REFUSED,), (ev.CHILD_STARTED,)),
    "heartbeat": ((ev.HEARTBEAT_FAILED,), (ev.HEARTBEAT_RECOVERED,)),
    "remount": ((ev.REMOUNT_FAILED,), (ev.REMOUNT_RECOVERED,)),
    "rescue": ((ev.RESCUE_FAILED,), (ev.RESCUE_RECOVERED,)),
    "table": ((ev.TABLE_UNREADABLE,), (ev.TABLE_READABLE,)),
    "unshared": ((ev.MOUNT_UNSHARED,), ()),
}
_VOLUME_STATES = (
    "writable", "full", "read-only", "refusing", "dead", "missing", "stale-target", "hung", "unknown",
)  # fmt: skip
_MOUNTED = {ev.MOUNT_BOUND, ev.MOUNT_ADOPTED, ev.MOUNT_RESTORED}
_LOST = {
    ev.MOUNT_LOST: "nothing",
    ev.MOUNT_WRONG: "another",
    ev.MOUNT_STACKED: "stacked",
    ev.MOUNT_READ_ONLY: "read-only",
    ev.MOUNT_SET_ASIDE: "set-aside",
}


@dataclass(frozen=True, slots=True)
class DumpCounts:
    """The dumps on the volume at one moment: seen = uploaded + pending + failed.

    `waiting` says why pending dumps are not stored yet, by reason; `oldest_pending_s` is 0 if none is pending.
    """

    seen: int
    uploaded: int
    failed: int
    pending: int
    oldest_pending_s: float
    waiting: dict[str, int]


class _Daemon:
    """What both daemons say of themselves; `mode` is mount or upload."""

    def __init__(
        self,
        mode: str,
        troubles: dict[str, tuple[tuple[Event, ...], tuple[Event, ...]]],
        monotonic: Callable[[], float],
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._monotonic = monotonic
        # A scrape reads while another thread counts: one lock keeps what belongs together together.
        self._lock = threading.RLock()
        about = self._gauge("dumpagent_build_info", "1; which dumpagent this is", ["mode", "version"])
        about.labels(mode, __version__).set(1)
        self._trouble = self._gauge(
            "dumpagent_trouble", "1 while this lasting trouble goes on, which the log explains", ["trouble"]
        )
        self._began: dict[Event, str] = {}
        self._ended: dict[Event, str] = {}
        for name, (began, ended) in troubles.items():
            self._trouble.labels(name).set(0)
            self._began.update(dict.fromkeys(began, name))
            self._ended.update(dict.fromkeys(ended, name))

    def _gauge(self, name: str, meaning: str, labels: Iterable[str] = ()) -> Gauge:
        return Gauge(name, meaning, tuple(labels), registry=self.registry)

    def _counter(self, name: str, meaning: str, labels: Iterable[str] = ()) -> Counter:
        return Counter(name, meaning, tuple(labels), registry=self.registry)

    def add_process(self) -> None:
        """Tell CPU, memory and descriptors of this process too."""
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """Give the whole text of /metrics."""
        with self._lock:
            return generate_latest(self.registry)

    def __call__(self, event: Event, /, **fields: object) -> None:
        """Count an event. Never waits for longer than a scrape takes to be written into memory."""
        with self._lock:
            if event in self._began:
                self._trouble.labels(self._began[event]).set(1)
            elif event in self._ended:
                self._trouble.labels(self._ended[event]).set(0)
            self._count(event, fields)

    def _count(self, event: Event, fields: dict[str, object]) -> None:
        raise NotImplementedError


class MountMetrics(_Daemon):
    """Counts what mount mode tells of."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        super().__init__("mount", _MOUNT_TROUBLES, monotonic)
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

    def _count(self, event: Event, fields: dict[str, object]) -> None:
        if event in _MOUNTED:
            self._up.set(1)
            if event is ev.MOUNT_RESTORED:
                self._remounts.inc()
        elif event in _LOST or event is ev.MOUNT_RELEASED:
            self._up.set(0)
            self._ready.set(0)
            if event in _LOST:
                self._losses.labels(_LOST[event]).inc()
        elif event is ev.WRITE_TESTED:
            self._tested(fields)
        elif event is ev.REMOUNT_FAILED:
            self._remount_failures.inc()
        elif event is ev.FILE_RESCUED:
            self._rescued.inc()
        elif event is ev.RESCUE_FAILED:
            self._rescue_failures.inc()

    def _tested(self, fields: dict[str, object]) -> None:
        outcome, seconds = fields["outcome"], fields["seconds"]
        for state in _VOLUME_STATES:
            self._volume.labels(state).set(state == outcome)
        if outcome == "writable" and isinstance(seconds, float):
            self._write_test.observe(seconds)
        else:
            self._write_test_failures.inc()
        proven = outcome == "writable" and fields.get("through_target") is True
        self._ready.set(proven)
        if proven:
            self._proven_at = self._monotonic()


class UploadMetrics(_Daemon):
    """Counts what upload mode tells of; `counts` gives the table of dumps at the moment of a scrape.

    `now` is the wall clock (seconds since the epoch), for the time stamps that Prometheus compares with its own.
    """

    def __init__(
        self,
        counts: Callable[[], DumpCounts],
        *,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__("upload", _TROUBLES, monotonic)
        self._now = now
        self.registry.register(_Table(counts))
        self._stored = self._counter(
            "dumpagent_dumps_stored_total",
            "dumps that this process brought to the store",
            ["verdict", "cause"],
        )
        for verdict in (State.COMPLETE, State.TRUNCATED, State.UNKNOWN):
            for cause in Cause:
                self._stored.labels(verdict.value, cause.value)
        self._already = self._counter(
            "dumpagent_dumps_already_stored_total", "dumps that the store held before; nothing was sent"
        )
        self._failures = self._counter(
            "dumpagent_upload_failures_total", "attempts to store a dump that failed", ["fault"]
        )
        for fault in ("store", "dump"):
            self._failures.labels(fault)
        self._read_bytes = self._counter(
            "dumpagent_dump_bytes_total", "size of the dumps that were brought to the store, as on the disk"
        )
        self._sent_bytes = self._counter("dumpagent_sent_bytes_total", "bytes of dumps sent to the store")
        self._upload_s = Histogram(
            "dumpagent_upload_seconds", "time that storing a dump took, from its first byte read",
            buckets=_UPLOAD_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._delay_s = Histogram(
            "dumpagent_dump_stored_delay_seconds",
            "time from the last write of a dump's JVM until the store had confirmed the dump",
            buckets=_DELAY_BUCKETS_S, registry=self.registry,
        )  # fmt: skip
        self._uploaded_at = self._gauge(
            "dumpagent_last_upload_timestamp_seconds", "when a dump was last stored; 0: not since the start"
        )
        self._scanned_at = self._gauge(
            "dumpagent_last_scan_timestamp_seconds",
            "when the whole volume was last looked at; 0: not since the start",
        )
        self._scan_s = self._gauge("dumpagent_scan_seconds", "time that the last scan took")
        self._unreadable = self._gauge(
            "dumpagent_scan_unreadable_paths", "files and directories that the last scan could not look at"
        )
        self._reachable = self._gauge(
            "dumpagent_store_reachable",
            "1 if the store can be used, as far as the last request tells, 0 if not; NaN: not asked yet",
        )
        self._reachable.set(math.nan)
        self._asked_at = self._gauge(
            "dumpagent_store_checked_timestamp_seconds", "when the store last answered or failed to; 0: never"
        )
        self._free = self._gauge(
            "dumpagent_volume_free_bytes", "space on the volume for what is not root; NaN: not known"
        )
        self._size = self._gauge("dumpagent_volume_size_bytes", "size of the volume; NaN: not known")
        self._free.set(math.nan)
        self._size.set(math.nan)
        self._largest = self._gauge(
            "dumpagent_largest_dump_bytes", "size of the largest dump that was seen since the start"
        )
        self._largest_bytes = 0
        self._counted = {
            ev.DUMP_DELETED: self._counter(
                "dumpagent_dumps_deleted_total", "stored dumps deleted from the volume to make room"
            ),
            ev.OBJECT_MISSING: self._counter(
                "dumpagent_objects_missing_total", "dumps that the store had confirmed and no longer held"
            ),
            ev.AGENT_FAULTY: self._counter(
                "dumpagent_agent_faults_total",
                "faults of the agent's own, at least; the log has their traces",
            ),
        }

    def _count(self, event: Event, fields: dict[str, object]) -> None:
        if event is ev.DUMP_UPLOADED or event is ev.DUMP_ALREADY_STORED:
            self._brought(event, fields)
        elif event is ev.ATTEMPT_FAILED:
            self._failures.labels(str(fields["fault"])).inc()
        elif event is ev.STORE_ANSWERED or event is ev.STORE_RECOVERED:
            self._told_of_store(usable=True)
        elif event is ev.STORE_FAILED:
            self._told_of_store(usable=False)
        elif event is ev.STORE_CHECKED:
            self._told_of_store(usable=fields["usable"] is True)
        elif event is ev.SCAN_FINISHED:
            self._unreadable.set(_number(fields["unreadable"]))
            self._scan_s.set(_number(fields["seconds"]))
            if not fields["unreadable"]:
                self._scanned_at.set(self._now())
        elif event is ev.SPACE_MEASURED:
            self._free.set(_number(fields["free_bytes"]))
            self._size.set(_number(fields["size_bytes"]))
        elif event in self._counted:
            self._counted[event].inc()
        elif event is ev.DUMP_FOUND:
            self._saw(fields)

    def _saw(self, fields: dict[str, object]) -> None:
        self._largest_bytes = max(self._largest_bytes, int(_number(fields["size_bytes"])))
        self._largest.set(self._largest_bytes)

    def _told_of_store(self, *, usable: bool) -> None:
        self._reachable.set(usable)
        self._asked_at.set(self._now())

    def _brought(self, event: Event, fields: dict[str, object]) -> None:
        self._saw(fields)
        self._told_of_store(usable=True)
        self._read_bytes.inc(_number(fields["size_bytes"]))
        self._sent_bytes.inc(_number(fields["sent_bytes"]))
        self._uploaded_at.set(self._now())
        if event is ev.DUMP_ALREADY_STORED:
            self._already.inc()
            return
        self._stored.labels(str(fields["verdict"]), str(fields.get("cause") or Cause.UNKNOWN.value)).inc()
        self._upload_s.observe(_number(fields["seconds"]))
        self._delay_s.observe(max(0.0, _number(fields["delay_seconds"])))


class _Table(Collector):
    """The table of dumps, read once per scrape, so that its sums hold at every one."""

    def __init__(self, counts: Callable[[], DumpCounts]) -> None:
        self._counts = counts

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        for name, value, meaning in (
            ("seen", counts.seen, "dumps that were seen on the volume: uploaded + pending + failed"),
            ("uploaded", counts.uploaded, "dumps of which the store confirmed that it holds them"),
            ("failed", counts.failed, "dumps that left the volume before they were stored: lost"),
        ):
            yield CounterMetricFamily(f"dumpagent_dumps_{name}", meaning, value=value)
        yield GaugeMetricFamily(
            "dumpagent_dumps_pending", "dumps that are not stored yet", value=counts.pending
        )
        waiting = GaugeMetricFamily(
            "dumpagent_dumps_waiting", "pending dumps by what they wait for", labels=["reason"]
        )
        for reason, number in counts.waiting.items():
            waiting.add_metric([reason], number)
        yield waiting
        yield GaugeMetricFamily(
            "dumpagent_dumps_oldest_pending_seconds",
            "time since the oldest pending dump was first seen; 0: none is pending",
            value=counts.oldest_pending_s,
        )


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan
