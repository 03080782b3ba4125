"""Finds the dumps on the volume whose time has come: scanned, judged and claimed, they are put up for upload."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from dumpagent.dumps.model import DumpFacts, DumpFile, State, Verdict
from dumpagent.dumps.names import dump_of_segment
from dumpagent.dumps.segment_files import segment_files_of
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import (
    ClaimFailed,
    ClaimRecovered,
    DumpClaimed,
    DumpFound,
    DumpGone,
    UploadFailed,
    UploadRecovered,
)
from dumpagent.observe.events.volume import (
    ReceiptsPruned,
    ScanFailed,
    ScanFinished,
    ScanRecovered,
    VolumeAway,
    VolumeBack,
)
from dumpagent.observe.incident import Incident
from dumpagent.upload.backlog import Backlog, Entry, Stage
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.volume.claim import CannotClaim, StillWritten
from dumpagent.upload.volume.judge import Judge
from dumpagent.upload.volume.presence import VolumeAt, is_away, volume_at
from dumpagent.upload.volume.scan import Scan, dump_file, scan
from dumpagent.upload.volume.unreadable import NOT_READABLE, scan_hint

_CLAIM_RECHECK_S = 0.25
_FAULT_RECHECK_S = 60.0  # a fault of ours with one dump is likely to come again
Claim = Callable[[DumpFile, DumpFacts | None], DumpFile]


class Finder:
    """Belongs to one thread. `claim` is None where dumps keep their names; `dump_incident` is told what one dump has.

    `unreadable` says of the last scan what it could not look at, and why, by path.
    """

    def __init__(
        self,
        *,
        root: str,
        backlog: Backlog,
        ledger: Ledger,
        judge: Judge,
        claim: Claim | None,
        dump_incident: Incident[UploadFailed, UploadRecovered],
        tell: Tell,
        retention_s: float,
        barrier: Barrier,
        monotonic: Callable[[], float],
    ) -> None:
        self._root, self._backlog, self._ledger, self._judge = root, backlog, ledger, judge
        self._claim, self._dump_incident, self._tell = claim, dump_incident, tell
        self._retention_s, self._barrier, self._monotonic = retention_s, barrier, monotonic
        self._scan_incident = Incident(tell, ScanFailed, ScanRecovered, monotonic=monotonic)
        self._claim_incident = Incident(tell, ClaimFailed, ClaimRecovered, monotonic=monotonic)
        self._volume_incident = Incident(tell, VolumeAway, VolumeBack, monotonic=monotonic)
        self._home: VolumeAt | None = None  # the volume of the first scan, which the receipts are about
        self._volume: VolumeAt | None = None
        self._away = False
        self.unreadable: dict[str, str] = {}

    def look(self) -> float | None:
        """Scan the volume, judge what waits, put up what is due.

        Gives the seconds after which another look can tell more, None if only a change of the volume can.
        """
        began, volume = self._monotonic(), volume_at(self._root)
        self._away = is_away(self._home, volume)
        if self._away:
            text, hint = (
                "the volume is not mounted",
                "see why the mount is lost; dumps wait on the volume until it is back",
            )
            self._volume_incident.failed("volume", VolumeAway(error=text, path=self._root, hint=hint))
            self.unreadable = {self._root: text}
            return None
        self._volume_incident.ended_for("volume", VolumeBack(path=self._root))
        self._home, self._volume = self._home or volume, volume
        found = scan(self._root, skip=frozenset({self._ledger.directory}))
        for path in self.unreadable.keys() - found.unreadable.keys():
            self._scan_incident.ended_for(path, ScanRecovered(path=path))
        self.unreadable = dict(found.unreadable)
        for path, reason in found.unreadable.items():
            self._scan_incident.failed(path, ScanFailed(error=reason, path=path, hint=scan_hint(reason)))
        self._tell(
            ScanFinished(
                path=self._root,
                dumps=len(found.dumps),
                unreadable=len(found.unreadable),
                seconds=self._monotonic() - began,
            )
        )
        if found.parts:
            self._take_over(found.dumps, everything=False)  # whose parts they are must be known first
        dumps = [*found.dumps, *self._orphans(found)]
        whole = (
            found.complete and volume_at(self._root) == volume
        )  # nothing was mounted or unmounted meanwhile
        self._take_over(dumps, everything=whole)
        if whole and volume == self._home:  # the receipts are about this one
            dropped = self._ledger.note_present(
                (dump.identity for dump in dumps), retention_s=self._retention_s
            )
            if dropped:
                self._tell(ReceiptsPruned(count=len(dropped), oldest=dropped[0].key))
        return self._judge_waiting()

    def look_at(self, relpaths: Iterable[str]) -> float | None:
        """Look at these files, which may be finished, and judge what waits, without a scan. Gives the same as `look`."""
        if self._away:
            return None
        dumps = []
        for relpath in relpaths:
            try:
                dump = dump_file(self._root, relpath, os.lstat(f"{self._root}/{relpath}"))
            except OSError:
                continue  # gone again, or unreadable: the next scan tells
            if dump:
                dumps.append(dump)
        self._take_over(dumps, everything=False)
        return self._judge_waiting()

    def _take_over(self, dumps: Iterable[DumpFile], *, everything: bool) -> None:
        changes = self._backlog.update(
            dumps,
            stored=lambda identity: self._ledger.receipt(identity) is not None,
            everything=everything,
            volume=self._volume,
        )
        for dump in changes.new:
            self._tell(DumpFound(path=dump.path, size_bytes=dump.size_bytes))
        for dump in changes.lost:
            self._judge.forget(dump)
            self._dump_incident.forget(dump.identity.inode)
            self._barrier.forget("judge", dump.path)
            self._tell(DumpGone(path=dump.path, size_bytes=dump.size_bytes))

    def _orphans(self, found: Scan) -> Iterator[DumpFile]:
        """Give the parts (X.hprof.p0) that are dumps of their own to us: their dump is settled, or gone."""
        by_path = {dump.relpath: dump for dump in found.dumps}
        for part in found.parts:
            dump = by_path.get(dump_of_segment(part.relpath) or "")
            settled = dump is not None and self._backlog.stage(dump) not in (None, Stage.WAITING)
            if settled or (dump is None and found.complete) or self._backlog.stage(part):
                yield part

    def look_again(self) -> float | None:
        """Judge the dumps that wait, without a scan: what a recheck costs must not grow with the volume.

        Gives the same as `look`.
        """
        if self._away:
            return None
        for entry in self._backlog.waiting():
            try:
                dump = dump_file(self._root, entry.dump.relpath, os.lstat(entry.dump.path))
            except OSError:
                continue  # gone, renamed or unreadable: the next scan tells
            if dump:
                self._backlog.refresh(entry, dump)
        return self._judge_waiting()

    def _judge_waiting(self) -> float | None:
        rechecks = [self._judge_one(entry) for entry in self._backlog.waiting()]
        # A truncated dump that is due brings its parts with it.
        rechecks += [self._judge_one(entry) for entry in self._backlog.waiting() if entry.verdict is None]
        return min((recheck_s for recheck_s in rechecks if recheck_s is not None), default=None)

    def _judge_one(self, entry: Entry) -> float | None:
        rechecks: list[float | None] = []
        path = entry.dump.path
        if not self._barrier.run("judge", lambda: rechecks.append(self._judged(entry)), path=path):
            return _FAULT_RECHECK_S
        return rechecks[0]

    def _judged(self, entry: Entry) -> float | None:
        dump = entry.dump
        try:
            verdict = self._judge.judge(dump)
            entry.verdict = verdict
            if not verdict.due:
                return verdict.recheck_s
            dump = self._claimed(dump, verdict)
            parts = segment_files_of(dump) if verdict.state in (State.TRUNCATED, State.UNKNOWN) else []
        except StillWritten:
            return _CLAIM_RECHECK_S
        except FileNotFoundError:
            return None  # gone or renamed since the scan: the next scan tells
        except OSError as error:
            self._dump_incident.failed(
                dump.identity.inode,
                UploadFailed(error=f"cannot be read: {error.strerror}", path=dump.path, hint=NOT_READABLE),
            )
            return None
        self._backlog.ready(entry, dump, verdict)
        self._take_over(parts, everything=False)
        return None

    def _claimed(self, dump: DumpFile, verdict: Verdict) -> DumpFile:
        """Give the dump under its claimed name, or as it is where it has one or cannot get one.

        Raises StillWritten, OSError.
        """
        if self._claim is None:
            return dump
        try:
            claimed = self._claim(dump, verdict.facts)
        except CannotClaim as error:
            # One trouble of the volume, not one of each dump.
            self._claim_incident.failed(
                "volume", ClaimFailed(error=str(error), path=dump.path, hint=error.hint)
            )
            return dump
        if claimed.relpath != dump.relpath:
            self._claim_incident.ended_for("volume", ClaimRecovered(path=dump.path))
            self._tell(DumpClaimed(path=dump.path, claimed_path=claimed.path, verdict=verdict.state.value))
        return claimed
