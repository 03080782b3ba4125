"""Finds the dumps on the volume whose time has come: scanned, judged and claimed, they are put up for upload."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field

from dumpagent.dumps.files import found_again, segment_files_of
from dumpagent.dumps.model import DumpFacts, DumpFile, State, Verdict, dump_time_ms
from dumpagent.dumps.recognise import Recogniser, Role
from dumpagent.kernel.children import Precedence
from dumpagent.kernel.owned import STATE
from dumpagent.kernel.volume import VolumeAt, is_away, volume_at
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
    OwnerCrowded,
    OwnerUncrowded,
    ScanFailed,
    ScanFinished,
    ScanRecovered,
    VolumeAway,
    VolumeBack,
)
from dumpagent.observe.held_open import HeldOpen
from dumpagent.observe.incident import Incident
from dumpagent.observe.left_alone import LeftAlone
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.entry import Entry, Stage
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.volume.claim import CannotClaim, StillWritten
from dumpagent.upload.volume.judge import Judge
from dumpagent.upload.volume.scan import FoundFile, Scanner, names_in, recognised
from dumpagent.upload.volume.unreadable import NOT_READABLE, scan_hint
from dumpagent.upload.volume.watch import Watch

_CLAIM_RECHECK_S = 0.25
_FAULT_RECHECK_S = 60.0  # a fault of ours with one dump is likely to come again
_STEP_S = 0.4  # of scanning, and of judging, before somebody else has a turn
_AT_ONCE = 16  # dumps to judge, chosen in fair order


@dataclass(frozen=True, slots=True)
class JudgedDump:
    """A dump that was put up, with the time when its JVM made it, ms since the epoch."""

    dump: DumpFile
    dump_time_ms: int


@dataclass(slots=True)
class Met:
    """What the finder met since it was last asked, for who follows: the files beside dumps, then the receipts.

    `begun`: a scan began with these. `named` are dumps under their names of now, `judged` those that were put up.
    `ended`: the scan looked everywhere on `volume`; `is_home`: the receipts are about that one.
    """

    begun: bool = False
    files: list[DumpFile] = field(default_factory=list)
    named: list[DumpFile] = field(default_factory=list)
    judged: list[JudgedDump] = field(default_factory=list)
    volume: Hashable = None
    ended: bool = False
    is_home: bool = False


Claim = Callable[[DumpFile, DumpFacts | None], DumpFile]


class Finder:
    """Belongs to one thread. `claim` is None where dumps keep their names; `dump_incident` is told what one dump has.
    `ledger` says what is stored. `keeps_beside`: somebody asks for the files beside dumps.

    `unreadable` says of the last scan what it could not look at, and why, by path.
    """

    def __init__(
        self,
        *,
        root: str,
        backlog: Backlog,
        ledger: Ledger,
        judge: Judge,
        precedence: Precedence,
        claim: Claim | None,
        dump_incident: Incident[UploadFailed, UploadRecovered],
        tell: Tell,
        barrier: Barrier,
        recogniser: Recogniser,
        keeps_beside: bool,
        monotonic: Callable[[], float],
    ) -> None:
        self._root, self._backlog, self._ledger, self._judge = root, backlog, ledger, judge
        self._precedence, self._claim, self._dump_incident, self._tell = (
            precedence,
            claim,
            dump_incident,
            tell,
        )
        self._barrier, self._monotonic = barrier, monotonic
        self._scan_incident = Incident(tell, ScanFailed, ScanRecovered, monotonic=monotonic)
        self._claim_incident = Incident(tell, ClaimFailed, ClaimRecovered, monotonic=monotonic)
        self._volume_incident = Incident(tell, VolumeAway, VolumeBack, monotonic=monotonic)
        self._home: VolumeAt | None = None  # the volume of the first scan, which the receipts are about
        self._volume: VolumeAt | None = None
        self._away = False
        self._crowd_incident = Incident(tell, OwnerCrowded, OwnerUncrowded, monotonic=monotonic)
        self._recogniser, self._left_alone, self._keeps_beside = recogniser, LeftAlone(tell), keeps_beside
        self._met = Met()
        self._held_open = HeldOpen(tell)
        self.unreadable: dict[str, str] = {}
        self.watch: Watch | None = None
        self._scanner: Scanner | None = None
        self._began, self._count = 0.0, 0
        self._left_out: Counter[int] = Counter()
        self._crowded: set[int] = set()

    @property
    def is_scanning(self) -> bool:
        """Say whether a scan is under way."""
        return self._scanner is not None

    @property
    def has_met(self) -> int:
        """Say how many files are held for who follows."""
        return len(self._met.files) + len(self._met.named)

    def take_met(self) -> Met:
        """Give what was met since the last call."""
        met, self._met = self._met, Met()
        met.volume = self._volume
        return met

    def look(self) -> float | None:
        """Scan the volume, judge what waits, put up what is due; for a second at most.

        Gives the seconds after which another look can tell more (0: the scan goes on with the next look of any kind),
        None if only a change of the volume can.
        """
        if self._is_away():
            return None
        if self._scanner is None:
            self._begin_scan()
        return self._go_on()

    def look_at(self, relpaths: Iterable[str], *, created: Iterable[str] = ()) -> float | None:
        """Look at these files, which may be finished, and judge what waits. Gives the same as `look`.

        `created` have just got their name: of those only what has bytes already, and was thus linked, is looked at.
        """
        if self._away:
            return None
        found = [
            *self._files_at(relpaths),
            *(each for each in self._files_at(created) if each.dump.size_bytes),
        ]
        dumps = [each.dump for each in found if each.role is Role.DUMP]
        self._take_over(dumps)
        self._take_over_beside(found)
        self._backlog.judge_now({(dump.device, dump.identity.inode) for dump in dumps})
        return self._go_on()

    def _files_at(self, relpaths: Iterable[str]) -> Iterator[FoundFile]:
        for relpath in relpaths:
            try:
                found = recognised(self._root, relpath, self._recogniser)
            except OSError:
                continue  # gone again, or unreadable: the next scan tells
            if found:
                yield found

    def _take_over_beside(self, found: Iterable[FoundFile]) -> None:
        if self._keeps_beside:
            self._met.files += [each.dump for each in found if each.role is Role.COMPANION]

    def look_again(self) -> float | None:
        """Go on with the scan if one is under way, and judge the dumps that wait. Gives the same as `look`."""
        return None if self._away else self._go_on()

    def _is_away(self) -> bool:
        volume = volume_at(self._root)
        self._away = is_away(self._home, volume)
        if self._away:
            self._scanner = None
            text, hint = (
                "the volume is not mounted",
                "see why the mount is lost; dumps wait on the volume until it is back",
            )
            self._volume_incident.failed("volume", VolumeAway(error=text, path=self._root, hint=hint))
            self.unreadable = {self._root: text}
            return True
        self._volume_incident.ended_for("volume", VolumeBack(path=self._root))
        if self._volume != volume:
            self._scanner = None  # it looks at what was here before
        self._home, self._volume = self._home or volume, volume
        return False

    def _go_on(self) -> float | None:
        """Work for `_STEP_S` at scanning and for as long at judging, whatever the files are."""
        if self._scanner:
            self._scan_on(self._scanner, until=self._monotonic() + _STEP_S)
        recheck_s = self._judge_some(until=self._monotonic() + _STEP_S)
        return 0.0 if self._scanner else recheck_s

    def _begin_scan(self) -> None:
        self._began, self._count = self._monotonic(), 0
        self._left_out = Counter()
        self._backlog.begin_scan()
        if self.watch:
            self.watch.begin()
        skip = names_in(self._root, frozenset({self._ledger.directory})) | {STATE}
        enter = self.watch.enter if self.watch else None
        self._left_alone.begin()
        self._met.begun = True
        self._scanner = Scanner(self._root, skip=skip, enter=enter, recogniser=self._recogniser)

    def _scan_on(self, scanner: Scanner, *, until: float) -> None:
        try:
            found = scanner.step(lambda: self._monotonic() >= until)
        except BaseException:
            self._scanner = (
                None  # a fault of ours: the next scan begins anew, and what waits is judged meanwhile
            )
            raise
        dumps = [each.dump for each in found if each.role is Role.DUMP]
        self._count += len(dumps)
        self._take_over(dumps)
        self._take_over_beside(found)
        for each in found:
            if each.role is Role.LEFT_ALONE:
                self._left_alone.note(each.dump)
        self._take_over(each.dump for each in found if each.is_segment and self._is_orphan(each))
        if scanner.finished:
            self._scanner = None
            self._finish_scan(scanner)

    def _finish_scan(self, scanner: Scanner) -> None:
        for path in self.unreadable.keys() - scanner.unreadable.keys():
            self._scan_incident.ended_for(path, ScanRecovered(path=path))
        self.unreadable = dict(scanner.unreadable)
        for path, reason in scanner.unreadable.items():
            self._scan_incident.failed(path, ScanFailed(error=reason, path=path, hint=scan_hint(reason)))
        self._tell(
            ScanFinished(
                path=self._root,
                dumps=self._count,
                unreadable=len(scanner.unreadable),
                seconds=self._monotonic() - self._began,
            )
        )
        self._tell_crowds(self._left_out + scanner.passed_over)
        self._left_alone.finish(scanner.not_entered, scanner.unknown)
        self._backlog.judge_all()
        if self.watch:
            self.watch.finish()
        if scanner.unreadable or volume_at(self._root) != self._volume:
            return  # what was not found may be there; or something was mounted or unmounted meanwhile
        self._tell_lost(self._backlog.finish_scan(self._volume))
        self._met.ended, self._met.is_home = True, self._volume == self._home

    def _tell_lost(self, dumps: Iterable[DumpFile]) -> None:
        for dump in dumps:
            self._judge.forget(dump)
            self._held_open.forget(dump)
            self._dump_incident.forget(dump.identity.inode)
            self._barrier.forget("judge", dump.path)
            self._tell(DumpGone(path=dump.path, size_bytes=dump.size_bytes))

    def _tell_crowds(self, left_out: Counter[int]) -> None:
        for uid, count in left_out.items():
            self._crowd_incident.failed(
                uid,
                OwnerCrowded(
                    error="more files at once than are taken, directories too deep, links to others' files, or files of holes",
                    path=self._root,
                    uid=uid,
                    count=count,
                    hint="find the application of this user on the node; others are not held up by it",
                ),
            )
        for uid in self._crowded - set(left_out):
            self._crowd_incident.ended_for(uid, OwnerUncrowded(path=self._root, uid=uid))
        self._crowded = set(left_out)

    def _take_over(self, files: Iterable[DumpFile]) -> None:
        dumps = list(files)
        changes = self._backlog.update(
            dumps,
            stored=lambda identity: self._ledger.receipt(identity) is not None,
            everything=False,
            volume=self._volume,
        )
        self._left_out += changes.left_out
        self._tell_lost(changes.lost)
        if self._keeps_beside:
            self._met.named += dumps
        for dump in changes.new:
            if dump.is_mostly_holes:
                self._left_out[dump.uid] += 1
            self._tell(DumpFound(path=dump.path, size_bytes=dump.size_bytes))

    def _is_orphan(self, found: FoundFile) -> bool:
        """Say whether a segment file is a dump of its own to us: its dump is settled, or gone."""
        if found.base is None or self._backlog.stage(found.dump):
            return True
        return self._backlog.stage(found.base) not in (None, Stage.WAITING)

    def _judge_some(self, *, until: float) -> float | None:
        """Judge, owner by owner, until it is time to look at something else."""
        while entries := self._backlog.to_judge(_AT_ONCE):
            for entry in entries:
                self._refresh(entry)
                self._backlog.judged(entry, self._judge_one(entry))
                if self._monotonic() >= until:
                    return 0.0
        return self._backlog.next_judging_s()

    def _refresh(self, entry: Entry) -> None:
        try:
            self._backlog.refresh(entry, found_again(entry.dump))
        except OSError:
            pass  # gone, renamed or unreadable: the next scan tells

    def _judge_one(self, entry: Entry) -> float | None:
        rechecks: list[float | None] = []
        path = entry.dump.path
        if not self._barrier.run("judge", lambda: rechecks.append(self._judged(entry)), path=path):
            return _FAULT_RECHECK_S
        return rechecks[0]

    def _judged(self, entry: Entry) -> float | None:
        dump = entry.dump
        try:
            with self._precedence.taken():
                verdict = self._judge.judge(dump)
            entry.verdict = verdict
            self._held_open.note(dump, verdict)
            if not verdict.due:
                if verdict.claimable:
                    self._backlog.refresh(entry, self._claimed(dump, verdict))
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
        if self._keeps_beside:
            self._met.judged.append(JudgedDump(dump, dump_time_ms(dump, verdict.facts)))
        self._backlog.ready(entry, dump, verdict)
        self._take_over(parts)
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
