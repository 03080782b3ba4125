"""Runs the passes of upload mode: find dumps, upload the finished ones, free space."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from dumpagent.dumps.model import Identity
from dumpagent.dumps.receipt import Receipt
from dumpagent.dumps.recognise import Recogniser
from dumpagent.errors import DumpagentError
from dumpagent.kernel.children import Precedence
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import DumpWaiting, DumpWouldUpload, UploadFailed, UploadRecovered
from dumpagent.observe.events.volume import ReceiptsPruned
from dumpagent.observe.incident import Incident
from dumpagent.store.protocol import Store
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.companions.companions import Companions, Travel
from dumpagent.upload.entry import Counts, Entry
from dumpagent.upload.keeping.deletion import Deletion
from dumpagent.upload.keeping.recheck import Recheck
from dumpagent.upload.keeping.reclaim import Reclaimer
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.replica.replica import First, ReplicaParts, ReplicaUploads
from dumpagent.upload.store_health import StoreHealth
from dumpagent.upload.transfer.job import Job
from dumpagent.upload.transfer.sweep import Sweep
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.finder import Claim, Finder
from dumpagent.upload.volume.judge import Judge
from dumpagent.upload.volume.watch import Watch
from dumpagent.upload.worker import (
    Outcome,
    ShowProgress,
    Summarise,
    UploadWorker,
    no_progress,
)

_DAY_S = 86400.0
_MOST_MET = 2000  # files that are held for who follows


@dataclass(frozen=True, slots=True)
class Pass:
    """What one `--once` pass did with the dumps that it found; `left` are those that a stop cut off.

    `replica` is the same of the second destination, where there is one.
    """

    uploaded: int = 0
    already_stored: int = 0
    waiting: int = 0
    failed: int = 0
    left: int = 0
    replica: Pass | None = None


class TakesDumps(Protocol):
    """Who uploads the dumps of one destination."""

    def take(self, *, timeout_s: float) -> Entry | None: ...
    def upload(self, entry: Entry) -> Outcome: ...


class UploadLoop:
    """Everything that upload mode does, a step at a time. The caller owns threads, signals and waiting.

    `look...` and `note_store` belong to one thread, `upload_next` and `reclaim` to another (or the same one). With a
    replica, its steps and `free_space` have a thread each: they may hang while the first destination is served.
    """

    def __init__(
        self,
        *,
        root: str,
        store: Store,
        ledger: Ledger,
        uploader: Uploader,
        judge: Judge,
        tell: Tell,
        stop: threading.Event,
        retention_days: float,
        claim: Claim | None = None,
        deletion: Deletion | None = None,
        barrier: Barrier | None = None,
        sweep: Sweep | None = None,
        progress: ShowProgress = no_progress,
        recogniser: Recogniser | None = None,
        travel: Travel | None = None,
        replica: ReplicaParts | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.backlog = Backlog(monotonic=monotonic)
        self.barrier = barrier or Barrier(tell, monotonic=monotonic)
        self.precedence = Precedence()
        self._ledger, self._uploader, self._tell, self._stop = ledger, uploader, tell, stop
        self._store_health = StoreHealth(store, tell, monotonic=monotonic)
        self.companions = self._companions(travel, store, monotonic) if travel else None
        dump_incident = Incident(tell, UploadFailed, UploadRecovered, monotonic=monotonic)
        self._ledgers = (ledger, replica.ledger) if replica else (ledger,)
        self._retention_s = retention_days * _DAY_S
        self._finder = Finder(
            root=root,
            backlog=self.backlog,
            ledger=ledger,
            judge=judge,
            precedence=self.precedence,
            claim=claim,
            dump_incident=dump_incident,
            tell=tell,
            barrier=self.barrier,
            recogniser=recogniser or Recogniser(),
            keeps_beside=self.companions is not None,
            monotonic=monotonic,
        )
        uploader.give_way_when(self.backlog.turn.is_cut, turn_is_over=self.backlog.turn.is_over)
        self._upload_worker = UploadWorker(
            backlog=self.backlog,
            uploader=uploader,
            ledger=ledger,
            judge=judge,
            store_health=self._store_health,
            dump_incident=dump_incident,
            tell=tell,
            stop=stop,
            progress=progress,
            barrier=self.barrier,
            precedence=self.precedence,
            monotonic=monotonic,
        )
        self._sweep = sweep
        self._reclaimer = deletion and Reclaimer(
            backlog=self.backlog,
            ledger=ledger,
            recheck=Recheck(store, ledger, tell, monotonic=monotonic),
            deletion=deletion,
            store_health=self._store_health,
            stop=stop,
        )
        self.replica = self._replica(replica, deletion, monotonic) if replica else None

    def _companions(self, travel: Travel, store: Store, monotonic: Callable[[], float]) -> Companions:
        return Companions(
            travel,
            dumps=self.backlog,
            store=store,
            ledger=self._ledger,
            store_health=self._store_health,
            tell=self._tell,
            stop=self._stop,
            monotonic=monotonic,
        )

    def _replica(
        self, parts: ReplicaParts, deletion: Deletion | None, monotonic: Callable[[], float]
    ) -> ReplicaUploads:
        first = First(self.backlog, self.companions, self._ledger, self._has_work, self.identities)
        replica = ReplicaUploads(
            parts, first, tell=self._tell, stop=self._stop, barrier=self.barrier, monotonic=monotonic
        )
        if deletion:
            deletion.ask_also(replica.held())
        if self.companions:
            self.companions.ask_also(replica.held(companions=True))
        return replica

    def _has_work(self) -> bool:
        """Say whether a dump is sent, or can be: while the store is left alone, none can."""
        return self.backlog.counts().sending > 0 or (
            not self._store_health.pause_left_s() and self.backlog.has_work()
        )

    def summarise_by(self, summarise: Summarise) -> None:
        """Have each dump that is stored from now on told to `summarise`."""
        self._upload_worker.summarise = summarise

    @property
    def counts(self) -> Counts:
        return self.backlog.counts()

    @property
    def is_scanning(self) -> bool:
        """Say whether a scan is under way."""
        return self._finder.is_scanning

    @property
    def root_incident(self) -> str | None:
        """Say why the last scan could not look at the dump root; None if it could, or if there was none yet."""
        return self._finder.unreadable.get(self.root)

    def look(self, *, whole: bool = False) -> float | None:
        """Scan the volume, judge what waits, put up what is due.

        Gives the seconds after which another look can tell more, None if only a change of the volume can. Works for a
        second at most, unless `whole`: then 0 says that it goes on with the next look of any kind.
        """
        recheck_s = self._look_everywhere() if whole else self._finder.look()
        return self._followed(recheck_s, whole=whole)

    def _look_everywhere(self) -> float | None:
        """Scan and judge to the end. Who follows gets what was met after that, or a part of it where that is a lot."""
        recheck_s = self._finder.look()
        while self.is_scanning or recheck_s == 0:
            if self._finder.has_met > _MOST_MET:
                self._followed(None)
            recheck_s = self._finder.look_again()
        return recheck_s

    def watch_with(self, watch: Watch | None) -> None:
        """Have every directory watched that is scanned from now on."""
        self._finder.watch = watch

    def look_at(self, relpaths: Iterable[str], *, created: Iterable[str] = ()) -> float | None:
        """Look at these files, which may be finished, and judge what waits, without a scan. Gives the same as `look`."""
        return self._followed(self._finder.look_at(relpaths, created=created))

    def look_again(self) -> float | None:
        """Judge the dumps that wait, without a scan. Gives the same as `look`."""
        return self._followed(self._finder.look_again())

    def _followed(self, recheck_s: float | None, *, whole: bool = False) -> float | None:
        """Let those follow that need what the finder met. Gives when another look of anybody can tell more."""
        met = self._finder.take_met()
        if self.companions:
            beside_s = self.companions.follow(met, whole=whole)
            recheck_s = min((each for each in (recheck_s, beside_s) if each is not None), default=None)
        if met.ended and met.is_home:
            self._prune_receipts()
        if self.replica:
            self.replica.take_over()
        return recheck_s

    def _prune_receipts(self) -> None:
        for ledger in self._ledgers:
            dropped = ledger.note_present(self.identities(), retention_s=self._retention_s)
            if dropped:
                self._tell(ReceiptsPruned(count=len(dropped), oldest=dropped[0].key))

    def identities(self) -> frozenset[Identity]:
        """Give all files that are known to be on the volume, dumps and what lies beside them."""
        beside = self.companions.finder.identities() if self.companions else frozenset()
        return self.backlog.identities() | beside

    def note_store(self, error: DumpagentError | None) -> None:
        """Take note of how the store answered a question that was not about a dump."""
        self._store_health.note(error)

    def upload_next(self, *, timeout_s: float) -> Outcome:
        """Upload the next dump that is due, waiting up to `timeout_s` for one.

        Gives how it was stored, why it was not, or None if there was nothing to do.
        """
        outcome = self._upload_worker.upload_next(timeout_s=timeout_s)
        self._expect_leftovers(outcome)
        return outcome

    def upload_companion(self) -> bool:
        """Upload the next file beside a dump; False if there was nothing to do, or a dump is to go first."""
        return self.companions is not None and self.companions.upload_next()

    def companions_are_overdue(self) -> bool:
        """Say whether a file beside a dump has waited for so long that it goes although dumps wait."""
        return self.companions is not None and self.companions.are_overdue()

    def reclaim(self) -> None:
        """Look once more at what was stored, delete what the policy allows to be deleted, end leftover uploads.

        With a replica nothing is deleted here: `free_space` does, which asks the replica, and may have to wait for it.
        """
        if self._reclaimer:
            self._reclaimer.recheck()
        if self.companions:
            self._store_health.ask(self.companions.recheck)
        if not self.replica:
            self.free_space()
        if self._sweep:
            self._store_health.ask(self._sweep_leftovers)

    def free_space(self) -> None:
        """Delete what the policy allows to be deleted."""
        if self._reclaimer:
            self._reclaimer.free_space()
        if self.companions:
            self._store_health.ask(self.companions.free_space)

    def _sweep_leftovers(self) -> None:
        if self._sweep:
            self._sweep.sweep(
                present=self.identities(),
                settled=self.counts.pending == 0,
                stopped=self._stop.is_set,
            )

    def _expect_leftovers(self, outcome: Outcome) -> None:
        if self._sweep and isinstance(outcome, Receipt):
            self._sweep.expect()

    def run_once(self, *, dry_run: bool = False) -> Pass:
        """Scan once and upload everything that is due, to the replica too; each dump is tried once."""
        self._look_everywhere()
        did = self._upload_all(self._upload_worker, self._uploader, dry_run=dry_run)
        if not self._stop.is_set():
            self._followed(None, whole=True)  # the dumps are safe first
        while not dry_run and not self._stop.is_set() and self.upload_companion():
            pass
        replica = self._run_replica_once(self.replica, dry_run=dry_run) if self.replica else None
        failed = len(did.failed)
        if self._stop.is_set():
            return Pass(
                did.uploaded, did.already_stored,
                failed=failed, left=self.counts.pending - failed, replica=replica,
            )  # fmt: skip
        if not dry_run:
            self.reclaim()
            if self.replica:
                self.replica.reclaim()
                self.free_space()
        # each dump counts once
        waiting = [entry for entry in self.backlog.waiting() if entry not in did.failed]
        for entry in waiting:
            if entry.verdict:
                self._tell(DumpWaiting(path=entry.dump.path, reason=entry.verdict.reason))
        unreadable = sum(1 for entry in waiting if entry.verdict is None) + len(self._finder.unreadable)
        return Pass(did.uploaded, did.already_stored, len(waiting), failed + unreadable, replica=replica)

    def _run_replica_once(self, replica: ReplicaUploads, *, dry_run: bool) -> Pass:
        replica.begin_pass()
        error = replica.check() if replica.counts.pending else None
        if error:
            replica.note_store(error)
            return Pass(failed=replica.counts.pending)
        did = self._upload_all(replica, replica.uploader, dry_run=dry_run, tell=replica.told)
        while not dry_run and not self._stop.is_set() and replica.upload_companion():
            pass
        failed = len(did.failed)
        if self._stop.is_set():
            left = replica.counts.pending - failed
            return Pass(did.uploaded, did.already_stored, failed=failed, left=left)
        waiting = sum(entry not in did.failed for entry in replica.backlog.waiting())
        return Pass(did.uploaded, did.already_stored, waiting, failed)

    def _upload_all(
        self,
        worker: TakesDumps,
        uploader: Uploader,
        *,
        dry_run: bool,
        tell: Tell | None = None,
    ) -> _Done:
        """Upload what is due to `worker`, or tell what that would do; each dump is tried once."""
        done = _Done()
        while not self._stop.is_set():
            entry = worker.take(timeout_s=0)
            if entry is None:
                break
            if dry_run:
                _foresee(uploader, entry, tell or self._tell)
                continue
            outcome = worker.upload(entry)
            self._expect_leftovers(outcome)
            if isinstance(outcome, Receipt):
                done.uploaded += outcome.is_news
                done.already_stored += not outcome.is_news
            elif outcome is not None:
                done.failed.append(entry)
        return done


@dataclass(slots=True)
class _Done:
    """What became of the dumps of one destination so far."""

    uploaded: int = 0
    already_stored: int = 0
    failed: list[Entry] = field(default_factory=list)


def _foresee(uploader: Uploader, entry: Entry, tell: Tell) -> None:
    assert entry.verdict is not None  # noqa: S101 - READY entries have one
    candidate = uploader.foresee(Job(entry.dump, entry.verdict))
    tell(
        DumpWouldUpload(
            path=entry.dump.path,
            key=candidate.key,
            size_bytes=entry.dump.size_bytes,
            verdict=entry.verdict.state.value,
            action="nothing: the store holds it already" if candidate.is_stored else "upload",
        )
    )
