"""Everything that upload mode does for the second destination, in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from dumpagent.dumps.model import DumpFile, Identity, State, Verdict
from dumpagent.dumps.receipt import Receipt
from dumpagent.errors import DumpagentError
from dumpagent.kernel.children import Precedence
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import UploadFailed, UploadRecovered
from dumpagent.observe.events.replica import ReplicaLost
from dumpagent.observe.incident import Incident
from dumpagent.store.protocol import Store
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.companions.companions import Companions
from dumpagent.upload.companions.queue import CompanionQueue
from dumpagent.upload.companions.worker import CompanionWorker, GivesWay
from dumpagent.upload.entry import Counts, Entry
from dumpagent.upload.keeping.elsewhere import HeldElsewhere
from dumpagent.upload.keeping.recheck import Recheck
from dumpagent.upload.keeping.reclaim import Reclaimer
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.replica.follower import Follower
from dumpagent.upload.replica.told import as_replica
from dumpagent.upload.store_health import StoreHealth
from dumpagent.upload.transfer.sweep import Sweep
from dumpagent.upload.transfer.uploader import Index, Uploader, no_index
from dumpagent.upload.volume.judge import Judge
from dumpagent.upload.worker import Outcome, ShowProgress, UploadWorker

_WAIT_S = 0.25  # for the first destination's dumps, and how often it is asked whether there are some
_OVERDUE_S, _GRANTED_S = 60.0, 5.0
_AT_REST = Verdict(State.UNKNOWN, "it is at rest", due=True)


@dataclass(frozen=True, slots=True)
class First:
    """What the replica sees of the first destination: its dumps, whose turn comes before the replica's.

    `has_work` says whether a dump is sent there or could be; `identities` are all files on the volume.
    """

    dumps: Backlog
    companions: Companions | None
    ledger: Ledger
    has_work: Callable[[], bool]
    identities: Callable[[], frozenset[Identity]]


@dataclass(frozen=True, slots=True)
class ReplicaParts:
    """What the replica is made of; `uploader` makes one that ends when its event is set, and writes to an index."""

    store: Store
    ledger: Ledger
    uploader: Callable[[threading.Event, Index], Uploader]
    judge: Judge
    index: Index
    sweep: Sweep | None
    progress: ShowProgress


class ReplicaUploads:
    """The second destination. `take_over` belongs to the thread that scans, the other steps to one of its own."""

    def __init__(
        self,
        parts: ReplicaParts,
        first: First,
        *,
        tell: Tell,
        stop: threading.Event,
        barrier: Barrier,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.barrier, self.ledger, self.store = barrier, parts.ledger, parts.store
        self._first, self._sweep, self._stop, self._monotonic = first, parts.sweep, stop, monotonic
        self._gives_way_to, self._idle_at = first.has_work, monotonic()
        self._tell, told = tell, as_replica(tell)
        self.told = told
        self.backlog = Backlog(monotonic=monotonic)
        self._queue = CompanionQueue(monotonic=monotonic)
        self._store_health = StoreHealth(parts.store, told, monotonic=monotonic)
        self._followers = [Follower(first.dumps, self.backlog, parts.ledger, parts.judge.judge)]
        self.uploader = parts.uploader(stop, parts.index)
        self.uploader.give_way_when(self._gives_way, turn_is_over=self.backlog.turn.is_over)
        self._asked_at, self._has_to_wait = -_WAIT_S, False
        self._upload_worker = UploadWorker(
            backlog=self.backlog,
            uploader=self.uploader,
            ledger=parts.ledger,
            judge=parts.judge,
            store_health=self._store_health,
            dump_incident=Incident(told, UploadFailed, UploadRecovered, monotonic=monotonic),
            tell=told,
            stop=stop,
            progress=parts.progress,
            barrier=barrier,
            precedence=Precedence(),
            finds_thread=False,
            monotonic=monotonic,
        )
        self._companion_worker: CompanionWorker | None = None
        if first.companions:
            self._companion_worker = self._companions(first.companions, parts)
            queue = first.companions.queue
            self._followers.append(Follower(queue, self._queue, parts.ledger, lambda _file: _AT_REST))
        self._reclaimers = [self._reclaimer(self.backlog), self._reclaimer(self._queue)]

    def _companions(self, companions: Companions, parts: ReplicaParts) -> CompanionWorker:
        def path_of(file: DumpFile) -> str:
            receipt = self._first.ledger.receipt(file.identity)
            return receipt.path if receipt else companions.finder.path_of(file)

        return CompanionWorker(
            dumps=self.backlog,
            queue=self._queue,
            path_of=path_of,
            gives_way=(gives_way := GivesWay(self._stop, self._dumps_go_first, monotonic=self._monotonic)),
            uploader=parts.uploader(gives_way, no_index),
            ledger=parts.ledger,
            stored=lambda _file: None,
            store_health=self._store_health,
            tell=self.told,
            monotonic=self._monotonic,
        )

    def _reclaimer(self, table: Backlog) -> Reclaimer:
        return Reclaimer(
            backlog=table,
            ledger=self.ledger,
            recheck=Recheck(self.store, self.ledger, self.told, monotonic=self._monotonic),
            deletion=None,
            store_health=self._store_health,
            stop=self._stop,
        )

    # -- what others ask ----------------------------------------------------------------------------------------

    @property
    def counts(self) -> Counts:
        return self.backlog.counts()

    @property
    def companion_counts(self) -> Counts:
        return self._queue.counts()

    def held(self, *, companions: bool = False) -> HeldElsewhere:
        """Give who says whether the replica holds a dump, or a file beside one, that is to be deleted."""
        table = self._queue if companions else self.backlog
        return HeldElsewhere(self.store, self.ledger, self._store_health, table, self.told)

    def check(self) -> DumpagentError | None:
        """Ask the replica whether it takes anything at all: give why not, None if it does or does not tell."""
        return self._store_health.refuses_everybody()

    def note_store(self, error: DumpagentError | None) -> None:
        """Take note of how the replica answered a question that was not about a dump."""
        self._store_health.note(error)

    # -- steps --------------------------------------------------------------------------------------------------

    def upload_next(self, *, timeout_s: float) -> Outcome:
        """Upload the next dump that the replica lacks, unless one of the first destination's is to go first.

        Gives how it was stored, why it was not, or None if there was nothing to do.
        """
        for follower in self._followers:
            follower.put_up()
        if self._first_goes():
            self._stop.wait(min(timeout_s, _WAIT_S))
            return None
        self._asked_at, self._has_to_wait = self._monotonic(), False
        return self._settled(self._upload_worker.upload_next(timeout_s=timeout_s))

    def take(self, *, timeout_s: float) -> Entry | None:
        """Give the next dump that is due, for `upload`; None if none comes up within `timeout_s`."""
        return self._upload_worker.take(timeout_s=timeout_s)

    def upload(self, entry: Entry) -> Outcome:
        """Upload this dump, which was taken from the backlog. Gives the same as `upload_next`."""
        return self._settled(self._upload_worker.upload(entry))

    def _settled(self, outcome: Outcome) -> Outcome:
        if self._sweep and isinstance(outcome, Receipt):
            self._sweep.expect()
        return outcome

    def upload_companion(self) -> bool:
        """Upload the next file beside a dump; False if there was nothing to do, or a dump is to go first."""
        if not self._companion_worker or self._first_goes():
            return False
        return self._companion_worker.upload_next()

    def companions_are_overdue(self) -> bool:
        """Say whether a file beside a dump has waited for so long that it goes although the replica's dumps wait."""
        return self._companion_worker is not None and self._companion_worker.is_overdue()

    def reclaim(self) -> None:
        """Confirm what was stored once more, end leftover uploads. Nothing is deleted from the volume here."""
        for reclaimer in self._reclaimers:
            reclaimer.recheck()
        if self._sweep:
            self._store_health.ask(self._sweep_leftovers)

    def _sweep_leftovers(self) -> None:
        if self._sweep:
            self._sweep.sweep(
                present=self._first.identities(),
                settled=self.counts.pending == 0,
                stopped=self._stop.is_set,
            )

    def take_over(self) -> None:
        """Take over which dumps are finished on the volume; tell what left it too early."""
        for follower in self._followers:
            for file in follower.take_over():
                self._tell(ReplicaLost(path=file.path, size_bytes=file.size_bytes))

    def begin_pass(self) -> None:
        """Put up for upload what is there, for one pass in which nobody has to go first."""
        self._gives_way_to = lambda: False
        self.take_over()
        for follower in self._followers:
            follower.put_up()

    # -- who goes first -----------------------------------------------------------------------------------------

    def _first_goes(self) -> bool:
        """Say whether the first destination's dumps go first. Where they never end, as a tenant can make them, the replica
        gets some seconds of each minute: nothing leaves the volume that it lacks.
        """
        now = self._monotonic()
        if not self._gives_way_to():
            self._idle_at = now
            return False
        return (now - self._idle_at) % _OVERDUE_S < _OVERDUE_S - _GRANTED_S

    def _dumps_go_first(self) -> bool:
        return self._first_goes() or self.backlog.has_work()

    def _gives_way(self) -> bool:
        """Say whether the upload under way has to wait. It is asked for each block that is read, by several threads."""
        now = self._monotonic()
        if now - self._asked_at >= _WAIT_S:
            self._asked_at = now
            self._has_to_wait = self._first_goes() or self.backlog.turn.is_cut()
        return self._has_to_wait
