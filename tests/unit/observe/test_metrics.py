"""The whole text of /metrics, compared line by line with what the docs and the dashboards rely on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dumpagent import __version__
from dumpagent.observe.events import Event
from dumpagent.observe.events.dumps import (
    AttemptFailed,
    DumpAlreadyStored,
    DumpFound,
    DumpSummarised,
    DumpUploaded,
    SummaryFailed,
    SummarySkipped,
)
from dumpagent.observe.events.memory import (
    ContainerKilled,
    KillLeftDump,
    MemoryEased,
    MemoryLooked,
    MemoryTight,
    PodsUnlisted,
)
from dumpagent.observe.events.mount import (
    FileRescued,
    MountBound,
    MountLost,
    MountRestored,
    RemountFailed,
    RemountRecovered,
    RescueFailed,
    WriteTested,
)
from dumpagent.observe.events.replica import (
    ReplicaAlreadyStored,
    ReplicaAttemptFailed,
    ReplicaFailed,
    ReplicaObjectMissing,
    ReplicaUploaded,
)
from dumpagent.observe.events.store import StoreFailed
from dumpagent.observe.events.volume import (
    ScanFinished,
    SpaceMeasured,
    StateUnwritable,
    StateWritable,
    WatchLimited,
)
from dumpagent.observe.metrics.daemon import DaemonMetrics
from dumpagent.observe.metrics.memory import MemoryWatchMetrics
from dumpagent.observe.metrics.mount import MountMetrics
from dumpagent.observe.metrics.replica import ReplicaCounts, ReplicaMetrics, TableCounts
from dumpagent.observe.metrics.upload import DumpCounts, FileCounts, UploadMetrics
from tests.harness.events import an_event

GOLDEN = Path(__file__).parent / "golden"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def _counts() -> DumpCounts:
    waiting = {"writing": 1, "queued": 1, "sending": 1, "retrying": 0}
    return DumpCounts(
        seen=12,
        uploaded=8,
        failed=1,
        pending=3,
        oldest_pending_s=77.5,
        waiting=waiting,
        companions=FileCounts(5, 3, 1, 1),
    )


def _stored(verdict: str, cause: str | None) -> dict[str, object]:
    return {
        "path": "/mnt/dump/a.hprof", "size_bytes": 1000, "sent_bytes": 1000, "seconds": 3.0, "delay_seconds": 4.5,
        "verdict": verdict, "cause": cause,
    }  # fmt: skip


def upload_metrics() -> UploadMetrics:
    """Give the metrics of an uploader that has lived through everything once."""
    metrics = UploadMetrics(_counts, now=lambda: 1_790_000_000.0, monotonic=Clock())
    metrics(an_event(ScanFinished, path="/mnt/dump", dumps=3, unreadable=0, seconds=0.25))
    metrics(an_event(ScanFinished, path="/mnt/dump", dumps=3, unreadable=2, seconds=0.5))
    metrics(an_event(SpaceMeasured, path="/mnt/dump", free_bytes=4 << 30, size_bytes=10 << 30))
    metrics(an_event(DumpFound, path="/mnt/dump/big.hprof", size_bytes=2 << 30))
    metrics(an_event(DumpUploaded, **_stored("complete", "oom")))
    metrics(an_event(DumpUploaded, **_stored("truncated", None)))
    metrics(an_event(DumpAlreadyStored, **_stored("complete", "oom") | {"sent_bytes": 0}))
    metrics(an_event(AttemptFailed, fault="store"))
    metrics(an_event(AttemptFailed, fault="dump"))
    metrics(an_event(StoreFailed, error="away"))
    metrics(an_event(WatchLimited, reason="no more watches"))
    metrics(an_event(StateUnwritable, error="full"))
    metrics(an_event(StateWritable))
    metrics(an_event(DumpSummarised, budget_ended=False))
    metrics(an_event(DumpSummarised, budget_ended=True))
    metrics(an_event(SummarySkipped))
    metrics(an_event(SummaryFailed, error="killed"))
    return metrics


def mount_metrics() -> MountMetrics:
    """Give the metrics of a manager that has lived through everything once."""
    clock = Clock()
    metrics = MountMetrics(monotonic=clock)
    metrics(an_event(MountBound))
    metrics(an_event(MountLost))
    metrics(an_event(RemountFailed, error="busy"))
    metrics(an_event(RemountRecovered))
    metrics(an_event(MountRestored, finding="nothing", seconds=1.0))
    metrics(an_event(WriteTested, outcome="full", step="write", seconds=0.5, through_target=False))
    metrics(an_event(WriteTested, outcome="writable", step="all", seconds=0.0234, through_target=True))
    metrics(an_event(FileRescued))
    metrics(an_event(RescueFailed, error="in use"))
    clock.now += 12
    return metrics


def memory_watch_metrics() -> MemoryWatchMetrics:
    """Give the metrics of a memory watch that has lived through everything once."""
    metrics = MemoryWatchMetrics(monotonic=Clock())
    metrics(an_event(ContainerKilled, cause="native_memory"))
    metrics(an_event(KillLeftDump))
    tight = {"namespace": "shop", "pod": "orders-1", "container": "app"}
    sizes = {"limit_bytes": 100, "heap_bytes": 90, "native_bytes": 30}
    metrics(an_event(MemoryTight, **tight, **sizes))
    metrics(an_event(MemoryTight, **tight | {"pod": "gone"}, **sizes))
    metrics(an_event(MemoryEased, **tight | {"pod": "gone"}))
    metrics(an_event(MemoryLooked, pods=7, tight=1))
    metrics(an_event(PodsUnlisted, error="away"))
    return metrics


class _WithReplica(UploadMetrics):
    """The page of an uploader with a second destination."""

    def __init__(self) -> None:
        super().__init__(_counts, now=lambda: 1_790_000_000.0, monotonic=Clock())
        counts = ReplicaCounts(TableCounts(9, 5, 1, 3, oldest_pending_s=30.5), TableCounts(4, 2, 1, 1))
        self.replica = ReplicaMetrics(self.registry, lambda: counts, now=lambda: 1_790_000_100.0)

    def __call__(self, event: Event, /) -> None:
        super().__call__(event)
        self.replica(event)


def replica_metrics() -> UploadMetrics:
    """Give the metrics of an uploader whose replica has lived through everything once."""
    metrics = _WithReplica()
    metrics(an_event(ReplicaUploaded, **_stored("complete", "oom")))
    metrics(an_event(ReplicaAlreadyStored, **_stored("complete", "oom") | {"sent_bytes": 0}))
    metrics(an_event(ReplicaAttemptFailed, fault="store"))
    metrics(an_event(ReplicaObjectMissing))
    metrics(an_event(ReplicaFailed, error="away"))
    return metrics


MODES: dict[str, tuple[Callable[[], DaemonMetrics], Callable[[], DaemonMetrics]]] = {
    "upload": (upload_metrics, lambda: UploadMetrics(_counts)),
    "replica": (replica_metrics, _WithReplica),
    "mount": (mount_metrics, MountMetrics),
    "memory-watch": (memory_watch_metrics, MemoryWatchMetrics),
}
_LATER = "dumpagent_memory_missing_bytes"  # its series are pods; its alert asks whether there is one


@pytest.mark.parametrize("mode", MODES)
def test_the_text_is_this(mode: str) -> None:
    """After a change on purpose: python -m tests.unit.observe.test_metrics writes the files anew."""
    assert _text(mode) == (GOLDEN / f"{mode}.txt").read_text()


def _text(mode: str) -> str:
    return MODES[mode][0]().text().decode().replace(f'version="{__version__}"', 'version="X"')


@pytest.mark.needs("promtool")
@pytest.mark.parametrize("mode", MODES)
def test_promtool_finds_nothing_to_say_about_names_and_help(mode: str) -> None:
    said = subprocess.run(
        ["promtool", "check", "metrics"], input=_text(mode), capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


@pytest.mark.parametrize("mode", MODES)
def test_before_anything_has_happened_every_name_is_there(mode: str) -> None:
    """An alert on a metric that comes into being with the fault would miss the first one."""
    fresh = MODES[mode][1]()
    names = {
        (sample.name, *sorted(sample.labels.items()))
        for family in text_string_to_metric_families(fresh.text().decode())
        for sample in family.samples
    }
    golden = (GOLDEN / f"{mode}.txt").read_text().replace('version="X"', f'version="{__version__}"')
    later = {
        (sample.name, *sorted(sample.labels.items()))
        for family in text_string_to_metric_families(golden)
        for sample in family.samples
        if family.name != _LATER
    }
    assert later == names


def test_process_figures_are_told_too() -> None:
    metrics = MountMetrics()
    metrics.add_process()
    assert b"process_resident_memory_bytes" in metrics.text()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for each in MODES:
        (GOLDEN / f"{each}.txt").write_text(_text(each))
