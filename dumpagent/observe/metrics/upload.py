"""The metrics of upload mode."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dumpagent.dumps.model import Cause, State
from dumpagent.observe.events import Event
from dumpagent.observe.events.daemon import (
    AgentFaulty,
    ChildRefused,
    ChildStarted,
    HeartbeatFailed,
    HeartbeatRecovered,
)
from dumpagent.observe.events.dumps import (
    AttemptFailed,
    ClaimFailed,
    ClaimRecovered,
    DeleteFailed,
    DeleteRecovered,
    DumpAlreadyStored,
    DumpDeleted,
    DumpFound,
    DumpSummarised,
    DumpUploaded,
    ObjectMissing,
    SummaryFailed,
    SummarySkipped,
)  # fmt: skip
from dumpagent.observe.events.store import StoreAnswered, StoreChecked, StoreFailed, StoreRecovered
from dumpagent.observe.events.volume import (
    LeftAloneCounted,
    OtherAgentFound,
    OtherAgentGone,
    ScanFinished,
    SpaceMeasured,
    StateUnwritable,
    StateWritable,
    VolumeAway,
    VolumeBack,
    VolumeFull,
    VolumeRoomy,
    WatchLimited,
    WatchUnavailable,
)  # fmt: skip
from dumpagent.observe.metrics.daemon import DaemonMetrics, Lasting

# Uploads: 10 MB on a fast line to 100 GB on a slow one.
_UPLOAD_BUCKETS_S = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_DELAY_BUCKETS_S = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600)

_LASTING: Lasting = {
    "child": ((ChildRefused,), (ChildStarted,)),
    "claim": ((ClaimFailed,), (ClaimRecovered,)),
    "delete": ((DeleteFailed,), (DeleteRecovered,)),
    "heartbeat": ((HeartbeatFailed,), (HeartbeatRecovered,)),
    "other_agent": ((OtherAgentFound,), (OtherAgentGone,)),
    "space": ((VolumeFull,), (VolumeRoomy,)),
    "state": ((StateUnwritable,), (StateWritable,)),
    "volume_away": ((VolumeAway,), (VolumeBack,)),
    "watch": ((WatchLimited, WatchUnavailable), ()),  # until the daemon is started again
}


@dataclass(frozen=True, slots=True)
class FileCounts:
    """The files beside dumps at one moment: seen = uploaded + pending + failed."""

    seen: int = 0
    uploaded: int = 0
    failed: int = 0
    pending: int = 0


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
    companions: FileCounts = FileCounts()


class UploadMetrics(DaemonMetrics):
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
        super().__init__("upload", _LASTING, monotonic)
        self._now = now
        self.registry.register(_DumpTable(counts))
        self._add_uploads()
        self._add_scans()
        self._add_store_and_volume()

    def _add_uploads(self) -> None:
        self._stored = self._counter(
            "dumpagent_dumps_stored_total",
            "dumps that this process uploaded",
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
            "dumpagent_dump_bytes_total", "size of the dumps that were uploaded, as on the disk"
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

    def _add_scans(self) -> None:
        self._scanned_at = self._gauge(
            "dumpagent_last_scan_timestamp_seconds",
            "when the whole volume was last looked at; 0: not since the start",
        )
        self._scan_s = self._gauge("dumpagent_scan_seconds", "time that the last scan took")
        self._unreadable = self._gauge(
            "dumpagent_scan_unreadable_paths", "files and directories that the last scan could not look at"
        )
        self._left_alone = self._gauge(
            "dumpagent_left_alone",
            "what the last scan left alone, which may hold a dump: core files, files whose first bytes cannot be read, directories",
            ["kind"],
        )
        for kind in ("core", "unreadable", "directory"):
            self._left_alone.labels(kind)

    def _add_store_and_volume(self) -> None:
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
        self._summaries = self._counter(
            "dumpagent_summaries_total", "summaries of stored dumps, by what came of them", ["outcome"]
        )
        for outcome in ("made", "budget_ended", "skipped", "failed"):
            self._summaries.labels(outcome)
        self._counted: dict[type[Event], Counter] = {
            DumpDeleted: self._counter(
                "dumpagent_dumps_deleted_total", "stored dumps deleted from the volume to make room"
            ),
            ObjectMissing: self._counter(
                "dumpagent_objects_missing_total", "dumps that the store had confirmed and no longer held"
            ),
            AgentFaulty: self._counter(
                "dumpagent_agent_faults_total",
                "faults of the agent's own, at least; the log has their traces",
            ),
        }

    def _count(self, event: Event) -> None:
        if isinstance(event, (DumpUploaded, DumpAlreadyStored)):
            self._count_stored(event)
        elif isinstance(event, AttemptFailed):
            self._failures.labels(event.fault).inc()
        elif isinstance(event, (StoreAnswered, StoreRecovered)):
            self._note_store(usable=True)
        elif isinstance(event, StoreFailed):
            self._note_store(usable=False)
        elif isinstance(event, StoreChecked):
            self._note_store(usable=event.usable)
        elif isinstance(event, ScanFinished):
            self._unreadable.set(event.unreadable)
            self._scan_s.set(event.seconds)
            if not event.unreadable:
                self._scanned_at.set(self._now())
        elif isinstance(event, LeftAloneCounted):
            self._left_alone.labels("core").set(event.cores)
            self._left_alone.labels("unreadable").set(event.unreadable)
            self._left_alone.labels("directory").set(event.directories)
        elif isinstance(event, SpaceMeasured):
            self._free.set(event.free_bytes)
            self._size.set(event.size_bytes)
        elif isinstance(event, DumpFound):
            self._note_size(event.size_bytes)
        elif isinstance(event, DumpSummarised):
            self._summaries.labels("budget_ended" if event.budget_ended else "made").inc()
        elif isinstance(event, (SummarySkipped, SummaryFailed)):
            self._summaries.labels("skipped" if isinstance(event, SummarySkipped) else "failed").inc()
        elif type(event) in self._counted:
            self._counted[type(event)].inc()

    def _note_size(self, size_bytes: int) -> None:
        self._largest_bytes = max(self._largest_bytes, size_bytes)
        self._largest.set(self._largest_bytes)

    def _note_store(self, *, usable: bool) -> None:
        self._reachable.set(usable)
        self._asked_at.set(self._now())

    def _count_stored(self, event: DumpUploaded | DumpAlreadyStored) -> None:
        self._note_size(event.size_bytes)
        self._note_store(usable=True)
        self._read_bytes.inc(event.size_bytes)
        self._sent_bytes.inc(event.sent_bytes)
        self._uploaded_at.set(self._now())
        if isinstance(event, DumpAlreadyStored):
            self._already.inc()
            return
        self._stored.labels(event.verdict, event.cause or Cause.UNKNOWN.value).inc()
        self._upload_s.observe(event.seconds)
        self._delay_s.observe(max(0.0, event.delay_seconds))


class _DumpTable(Collector):
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
        yield from _companions(counts.companions)


def _companions(counts: FileCounts) -> Iterator[Metric]:
    for name, value, meaning in (
        ("seen", counts.seen, "files beside dumps that are to be stored: uploaded + pending + failed"),
        ("uploaded", counts.uploaded, "files beside dumps of which the store confirmed that it holds them"),
        ("failed", counts.failed, "files beside dumps that left the volume before they were stored"),
    ):
        yield CounterMetricFamily(f"dumpagent_companions_{name}", meaning, value=value)
    yield GaugeMetricFamily(
        "dumpagent_companions_pending", "files beside dumps that are not stored yet", value=counts.pending
    )
