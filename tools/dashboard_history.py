"""A day and a quarter of a fleet of three nodes, as Prometheus would have scraped it: for the dashboard's picture.

What happens is made up (dumps, a crash loop, a store that is away for a while, a lost mount), by a seed, so that the
picture changes only when the dashboard or the metrics do. The metrics are counted by the daemons' own code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import TextIO

from dumpagent.observe.events.dumps import (
    AttemptFailed,
    ClaimFailed,
    ClaimRecovered,
    DumpDeleted,
    DumpFound,
    DumpUploaded,
)
from dumpagent.observe.events.mount import FileRescued, MountAdopted, MountLost, MountRestored, WriteTested
from dumpagent.observe.events.store import StoreAnswered, StoreChecked, StoreFailed
from dumpagent.observe.events.volume import ScanFinished, SpaceMeasured
from dumpagent.observe.metrics.mount import MountMetrics
from dumpagent.observe.metrics.upload import DumpCounts, UploadMetrics
from dumpagent.units import GIB, MIB
from tests.harness.events import an_event

END = 1_780_322_400  # 2026-06-01T14:00:00Z
HOUR = 3600
SHOWN_S = 6 * HOUR
_BEGIN = END - 30 * HOUR  # "in 24 h" must have its day before the first moment that is shown
_OUTAGE = (END - int(4.2 * HOUR), END - int(3.8 * HOUR))
_VOLUME_BYTES, _MIN_FREE = 120 * GIB, 0.30
_WRITE_BYTES_S, _SEND_BYTES_S = 250e6, 60e6


@dataclass
class _Dump:
    found_at: float
    size_bytes: int
    truncated: bool
    cause: str
    told: set[str] = field(default_factory=set)
    closed_at: float = 0.0
    sending_at: float = 0.0
    stored_at: float = 0.0

    def phase(self, now: float) -> str:
        if now >= self.stored_at:
            return "stored"
        if _OUTAGE[0] <= now < _OUTAGE[1] and now >= self.closed_at:
            return "retrying"
        return "writing" if now < self.closed_at else "queued" if now < self.sending_at else "sending"


class _Node:
    """One node's two daemons; `step` lets them live until `now`."""

    def __init__(
        self,
        name: str,
        seed: int,
        *,
        crash_loop_at: float | None = None,
        mount_lost_at: float | None = None,
        unrenamable: tuple[float, float] | None = None,
    ) -> None:
        self.name, self.now = name, float(_BEGIN)
        self._dice = Random(seed)  # noqa: S311 - nobody need be surprised
        self._lost_at, self._mounted_again = mount_lost_at, False
        self._dumps = sorted(self._made_up(crash_loop_at), key=lambda dump: dump.found_at)
        self._on_disk: list[_Dump] = []
        self._since_scan_s, self._since_test_s = self._dice.uniform(5, 50), self._dice.uniform(3, 25)
        self._told_loss, self._unrenamable = False, unrenamable
        self._cpu = {"mount": 3.0, "upload": 60.0}
        clock = lambda: self.now  # noqa: E731 - three words
        self.mount, self.upload = (
            MountMetrics(monotonic=clock),
            UploadMetrics(self._counts, now=clock, monotonic=clock),
        )
        self.mount(an_event(MountAdopted))
        self.upload(an_event(StoreAnswered))

    def _made_up(self, crash_loop_at: float | None) -> Iterator[_Dump]:
        dice, at, free_at = self._dice, float(_BEGIN), 0.0
        times = []
        while (at := at + dice.expovariate(1 / (2400 + 1500 * dice.random()))) < END - 60:
            times.append(at)
        if crash_loop_at:
            times += [crash_loop_at + number * 190 for number in range(9)]
        for found_at in sorted(times):
            size = int(min(9 * GIB, dice.lognormvariate(20.8, 0.7)))
            dump = _Dump(
                found_at,
                size,
                dice.random() < 0.06,
                dice.choices(["oom", "request", "unknown"], [12, 3, 1])[0],
            )
            dump.closed_at = found_at + size / _WRITE_BYTES_S
            dump.sending_at = max(dump.closed_at + 0.3, free_at)
            if _OUTAGE[0] <= dump.sending_at < _OUTAGE[1]:
                dump.sending_at = _OUTAGE[1] + 30 + 20 * dice.random()
                dump.sending_at = max(dump.sending_at, free_at)
            dump.stored_at = free_at = (
                dump.sending_at + 0.4 + size / _SEND_BYTES_S * (0.8 + 0.5 * dice.random())
            )
            yield dump

    def _counts(self) -> DumpCounts:
        seen = [dump for dump in self._dumps if dump.found_at <= self.now]
        phases = [dump.phase(self.now) for dump in seen]
        pending = [dump for dump, phase in zip(seen, phases, strict=True) if phase != "stored"]
        oldest_s = max((self.now - dump.found_at for dump in pending), default=0.0)
        waiting = {reason: phases.count(reason) for reason in ("writing", "queued", "sending", "retrying")}
        return DumpCounts(len(seen), len(seen) - len(pending), 0, len(pending), oldest_s, waiting)

    def step(self, now: float) -> None:
        """Tell what happened since the last step."""
        self._cpu["mount"] += (now - self.now) * (0.0011 + 0.0004 * self._dice.random())
        self._cpu["upload"] += (now - self.now) * (0.0022 + 0.0008 * self._dice.random())
        self.now = now
        self._live_with_mount()
        for dump in self._dumps:
            if dump.found_at <= now:
                self._live_with(dump)
        if _OUTAGE[0] <= now < _OUTAGE[1]:
            self.upload(an_event(StoreFailed, error="the store answered 503 SlowDown"))
        elif now >= _OUTAGE[1]:
            self.upload(an_event(StoreChecked, usable=True))
        self.now -= (
            self._since_scan_s + 2 * self._dice.random()
        )  # neither it nor the write test waits for a scrape
        self.upload(an_event(ScanFinished, dumps=len(self._on_disk), unreadable=0, seconds=0.02))
        self.now = now
        self._make_room()
        if self._unrenamable and self._unrenamable[0] <= now < self._unrenamable[1]:
            self.upload(an_event(ClaimFailed, error="Operation not permitted"))
        else:
            self.upload(an_event(ClaimRecovered))

    def _live_with_mount(self) -> None:
        lost = self._lost_at is not None and self._lost_at <= self.now < self._lost_at + 90
        if lost:
            if self._told_loss is False:
                self._told_loss = True
                self.mount(an_event(MountLost))
            self.mount(an_event(WriteTested, outcome="unknown"))
            return
        if self._lost_at is not None and self.now >= self._lost_at + 90 and not self._mounted_again:
            self._mounted_again = True
            self.mount(an_event(MountRestored))
            self.mount(an_event(FileRescued))
        now = self.now
        self.now -= self._since_test_s + 2 * self._dice.random()
        took_s = self._dice.lognormvariate(-5.6, 0.5)
        self.mount(an_event(WriteTested, outcome="writable", seconds=took_s, through_target=True))
        self.now = now

    def _live_with(self, dump: _Dump) -> None:
        phase = dump.phase(self.now)
        if "found" not in dump.told:
            dump.told.add("found")
            self._on_disk.append(dump)
            self.upload(an_event(DumpFound, path="", size_bytes=dump.size_bytes))
        if phase == "retrying" and self._dice.random() < 0.35:
            self.upload(an_event(AttemptFailed, fault="store"))
        if phase == "stored" and "stored" not in dump.told:
            dump.told.add("stored")
            self._cpu["upload"] += dump.size_bytes / GIB * 0.9
            self.upload(
                an_event(DumpUploaded, size_bytes=dump.size_bytes, sent_bytes=dump.size_bytes,
                seconds=dump.stored_at - dump.sending_at, delay_seconds=dump.stored_at - dump.closed_at,
                verdict="truncated" if dump.truncated else "complete", cause=dump.cause,
            ))  # fmt: skip

    def _make_room(self) -> None:
        used = sum(dump.size_bytes for dump in self._on_disk) + 40 * GIB
        while _VOLUME_BYTES - used < _MIN_FREE * _VOLUME_BYTES and "stored" in self._on_disk[0].told:
            used -= self._on_disk.pop(0).size_bytes
            self.upload(an_event(DumpDeleted))
        self.upload(an_event(SpaceMeasured, free_bytes=_VOLUME_BYTES - used, size_bytes=_VOLUME_BYTES))

    def process(self, mode: str) -> dict[str, float]:
        """Give what Linux would say of the daemon: the sizes are those of docs/mount.md and of the bench."""
        sending = mode == "upload" and any(dump.phase(self.now) == "sending" for dump in self._dumps)
        resident = {"mount": 17 * MIB, "upload": 62 * MIB}[mode] + (38 * MIB if sending else 0)
        return {
            "process_resident_memory_bytes": resident + self._dice.randrange(MIB),
            "process_cpu_seconds_total": self._cpu[mode],
        }


def write(out: TextIO, queries: list[str]) -> None:
    """Write all samples of the series that `queries` ask for, as promtool reads them (OpenMetrics)."""
    names = set(re.findall(r"\b(?:dumpagent|process)_[a-z_]+", " ".join(queries)))
    nodes = [
        _Node("worker-1", 1, unrenamable=(END - 5.2 * HOUR, END - 4.6 * HOUR)),
        _Node("worker-2", 5, crash_loop_at=END - 2.2 * HOUR, mount_lost_at=END - 20 * HOUR),
        _Node("worker-3", 3, mount_lost_at=END - 1.2 * HOUR),
    ]
    now = float(_BEGIN)
    while now <= END:
        for number, node in enumerate(nodes):
            node.step(now)
            for mode, pod in (("mount", "dump-volume-manager"), ("upload", "heap-dump-s3-uploader")):
                who = f'job="dumpagent",node="{node.name}",pod="{pod}-{number}"'
                for line in _lines(node, mode, who):
                    if line.partition("{")[0] in names:
                        out.write(f"{line} {now:.0f}\n")
        now += 30 if now >= END - SHOWN_S - HOUR else 120
    out.write("# EOF\n")


def _lines(node: _Node, mode: str, who: str) -> Iterator[str]:
    metrics = node.mount if mode == "mount" else node.upload
    for line in metrics.text().decode().splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, labelled, labels = series.partition("{")
            yield f"{name}{{{who}{',' + labels if labelled else '}'} {value}"
    for name, figure in node.process(mode).items():
        yield f"{name}{{{who}}} {figure}"
