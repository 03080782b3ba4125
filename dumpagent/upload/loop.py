"""Runs the passes of upload mode: find dumps, upload the finished ones, free space."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from dumpagent.dumps.receipt import Receipt
from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import DumpWaiting, DumpWouldUpload, UploadFailed, UploadRecovered
from dumpagent.observe.incident import Incident
from dumpagent.store.protocol import Store
from dumpagent.upload.backlog import Backlog, Counts, Entry
from dumpagent.upload.companions.companions import Companions, Travel
from dumpagent.upload.keeping.deletion import Deletion
from dumpagent.upload.keeping.recheck import Recheck
from dumpagent.upload.keeping.reclaim import Reclaimer
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.precedence import JudgedFirst, Precedence
from dumpagent.upload.store_health import StoreHealth
from dumpagent.upload.transfer.job import Job
from dumpagent.upload.transfer.sweep import Sweep
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.finder import Claim, Finder
from dumpagent.upload.volume.judge import Judge
from dumpagent.upload.volume.recognise import Recogniser
from dumpagent.upload.volume.watch import Watch
from dumpagent.upload.worker import (
    Index,
    Outcome,
    ShowProgress,
    Summarise,
    UploadWorker,
    no_index,
    no_progress,
)

_DAY_S = 86400.0
_SWEEP_RETRY_S = 30.0


@dataclass(frozen=True, slots=True)
class Pass:
    """What one `--once` pass did with the dumps that it found; `left` are those that a stop cut off."""

    uploaded: int = 0
    already_stored: int = 0
    waiting: int = 0
    failed: int = 0
    left: int = 0


class UploadLoop:
    """Everything that upload mode does, a step at a time. The caller owns threads, signals and waiting.

    `look...` and `note_store` belong to one thread, `upload_next` and `reclaim` to another (or the same one).
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
        index: Index = no_index,
        recogniser: Recogniser | None = None,
        travel: Travel | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.backlog = Backlog(monotonic=monotonic)
        self.barrier = barrier or Barrier(tell, monotonic=monotonic)
        self.precedence = Precedence()
        self._ledger, self._uploader, self._tell, self._stop = ledger, uploader, tell, stop
        self._store_health = StoreHealth(store, tell, monotonic=monotonic)
        self.companions: Companions | None = None
        if travel:
            self.companions = Companions(
                travel,
                dumps=self.backlog,
                store=store,
                ledger=ledger,
                store_health=self._store_health,
                tell=tell,
                stop=stop,
                monotonic=monotonic,
            )
        dump_incident = Incident(tell, UploadFailed, UploadRecovered, monotonic=monotonic)
        self._finder = Finder(
            root=root,
            backlog=self.backlog,
            ledger=ledger,
            judge=JudgedFirst(judge, self.precedence),
            claim=claim,
            dump_incident=dump_incident,
            tell=tell,
            retention_s=retention_days * _DAY_S,
            barrier=self.barrier,
            recogniser=recogniser or Recogniser(),
            beside=self.companions.finder if self.companions else None,
            monotonic=monotonic,
        )
        uploader.give_way_when(self.backlog.gives_way, turn_is_over=self.backlog.turn_is_over)
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
            index=index,
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
        return self._finder.look(whole=whole)

    def watch_with(self, watch: Watch | None) -> None:
        """Have every directory watched that is scanned from now on."""
        self._finder.watch = watch

    def look_at(self, relpaths: Iterable[str], *, created: Iterable[str] = ()) -> float | None:
        """Look at these files, which may be finished, and judge what waits, without a scan. Gives the same as `look`."""
        return self._finder.look_at(relpaths, created=created)

    def look_again(self) -> float | None:
        """Judge the dumps that wait, without a scan. Gives the same as `look`."""
        return self._finder.look_again()

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
        """Look once more at what was stored, delete what the policy allows to be deleted, end leftover uploads."""
        if self._reclaimer:
            self._reclaimer.reclaim()
        if self.companions and not self._store_health.pause_left_s():
            try:
                self.companions.reclaim()
            except Unreachable as error:
                self._store_health.leave_alone(_SWEEP_RETRY_S)
                self._store_health.note(error)
        if self._sweep and not self._store_health.pause_left_s():
            try:
                self._sweep.sweep(
                    present=self._finder.identities(),
                    settled=self.counts.pending == 0,
                    stopped=self._stop.is_set,
                )
            except Unreachable as error:
                self._store_health.leave_alone(_SWEEP_RETRY_S)
                self._store_health.note(error)

    def _expect_leftovers(self, outcome: Outcome) -> None:
        if self._sweep and isinstance(outcome, Receipt):
            self._sweep.expect()

    def run_once(self, *, dry_run: bool = False) -> Pass:
        """Scan once and upload everything that is due; each dump is tried once."""
        self.look(whole=True)
        uploaded = already_stored = 0
        failed: list[Entry] = []
        while not self._stop.is_set():
            entry = self.backlog.take(timeout_s=0)
            if entry is None:
                break
            if dry_run:
                self._foresee(entry)
                continue
            outcome = self._upload_worker.upload(entry)
            self._expect_leftovers(outcome)
            if isinstance(outcome, Receipt):
                if outcome.is_news:
                    uploaded += 1
                else:
                    already_stored += 1
            elif outcome is not None:
                failed.append(entry)
        while not dry_run and not self._stop.is_set() and self.upload_companion():
            pass
        if self._stop.is_set():
            return Pass(uploaded, already_stored, failed=len(failed), left=self.counts.pending - len(failed))
        if not dry_run:
            self.reclaim()
        waiting = [entry for entry in self.backlog.waiting() if entry not in failed]  # each dump counts once
        for entry in waiting:
            if entry.verdict:
                self._tell(DumpWaiting(path=entry.dump.path, reason=entry.verdict.reason))
        unreadable = sum(1 for entry in waiting if entry.verdict is None) + len(self._finder.unreadable)
        return Pass(uploaded, already_stored, len(waiting), len(failed) + unreadable)

    def _foresee(self, entry: Entry) -> None:
        assert entry.verdict is not None  # noqa: S101 - READY entries have one
        candidate = self._uploader.foresee(Job(entry.dump, entry.verdict))
        self._tell(
            DumpWouldUpload(
                path=entry.dump.path,
                key=candidate.key,
                size_bytes=entry.dump.size_bytes,
                verdict=entry.verdict.state.value,
                action="nothing: the store holds it already" if candidate.is_stored else "upload",
            )
        )
