"""The metrics of the second destination, where there is one."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client import Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from dumpagent.observe.events import Event
from dumpagent.observe.events.replica import (
    ReplicaAlreadyStored,
    ReplicaAnswered,
    ReplicaAttemptFailed,
    ReplicaChecked,
    ReplicaFailed,
    ReplicaObjectMissing,
    ReplicaRecovered,
    ReplicaUploaded,
)


@dataclass(frozen=True, slots=True)
class TableCounts:
    """The dumps, or the files beside them, that the replica is to have: seen = uploaded + pending + failed."""

    seen: int
    uploaded: int
    failed: int
    pending: int
    oldest_pending_s: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicaCounts:
    """The replica's two tables at one moment."""

    dumps: TableCounts
    companions: TableCounts


class ReplicaMetrics:
    """Counts what is told of the replica; `counts` gives its tables at the moment of a scrape. `now`: the wall clock."""

    def __init__(
        self,
        registry: CollectorRegistry,
        counts: Callable[[], ReplicaCounts],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._now = now
        registry.register(_Tables(counts))
        self._failures = Counter(
            "dumpagent_replica_upload_failures_total", "attempts to store a dump in the replica that failed",
            ["fault"], registry=registry,
        )  # fmt: skip
        for fault in ("store", "dump"):
            self._failures.labels(fault)
        self._sent_bytes = Counter(
            "dumpagent_replica_sent_bytes_total", "bytes of dumps sent to the replica", registry=registry
        )
        self._missing = Counter(
            "dumpagent_replica_objects_missing_total",
            "dumps that the replica had confirmed and no longer held", registry=registry,
        )  # fmt: skip
        self._uploaded_at = Gauge(
            "dumpagent_replica_last_upload_timestamp_seconds",
            "when a dump was last stored in the replica; 0: not since the start", registry=registry,
        )  # fmt: skip
        self._reachable = Gauge(
            "dumpagent_replica_store_reachable",
            "1 if the replica can be used, as far as the last request tells, 0 if not; NaN: not asked yet",
            registry=registry,
        )
        self._reachable.set(math.nan)
        self._asked_at = Gauge(
            "dumpagent_replica_store_checked_timestamp_seconds",
            "when the replica last answered or failed to; 0: never", registry=registry,
        )  # fmt: skip

    def __call__(self, event: Event, /) -> None:
        """Count an event."""
        if isinstance(event, (ReplicaUploaded, ReplicaAlreadyStored)):
            self._sent_bytes.inc(event.sent_bytes)
            self._uploaded_at.set(self._now())
            self._note_store(usable=True)
        elif isinstance(event, ReplicaAttemptFailed):
            self._failures.labels(event.fault).inc()
        elif isinstance(event, ReplicaObjectMissing):
            self._missing.inc()
        elif isinstance(event, (ReplicaAnswered, ReplicaRecovered)):
            self._note_store(usable=True)
        elif isinstance(event, ReplicaFailed):
            self._note_store(usable=False)
        elif isinstance(event, ReplicaChecked):
            self._note_store(usable=event.usable)

    def _note_store(self, *, usable: bool) -> None:
        self._reachable.set(usable)
        self._asked_at.set(self._now())


class _Tables(Collector):
    """The replica's tables, read once per scrape, so that their sums hold at every one."""

    def __init__(self, counts: Callable[[], ReplicaCounts]) -> None:
        self._counts = counts

    def describe(self) -> Iterator[Metric]:
        return iter(())

    def collect(self) -> Iterator[Metric]:
        counts = self._counts()
        yield from _table("dumpagent_replica_dumps", "dumps", counts.dumps)
        yield from _table("dumpagent_replica_companions", "files beside dumps", counts.companions)
        yield GaugeMetricFamily(
            "dumpagent_replica_dumps_oldest_pending_seconds",
            "time since the oldest dump that the replica lacks was finished; 0: it lacks none",
            value=counts.dumps.oldest_pending_s,
        )


def _table(name: str, what: str, counts: TableCounts) -> Iterator[Metric]:
    for noun, value, meaning in (
        ("seen", counts.seen, f"{what} that the replica is to have: uploaded + pending + failed"),
        ("uploaded", counts.uploaded, f"{what} of which the replica confirmed that it holds them"),
        ("failed", counts.failed, f"{what} that left the volume before the replica had them"),
    ):
        yield CounterMetricFamily(f"{name}_{noun}", meaning, value=value)
    yield GaugeMetricFamily(f"{name}_pending", f"{what} that the replica lacks", value=counts.pending)
