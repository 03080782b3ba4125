"""Everything that upload mode does for the files beside dumps, for the loop to call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from dumpagent.dumps.files import open_dump
from dumpagent.dumps.model import DumpFile
from dumpagent.kernel.lease import WriterState, release_lease, take_read_lease
from dumpagent.observe.events import Event, Tell
from dumpagent.observe.events.companions import CompanionDeleted
from dumpagent.observe.events.dumps import DumpDeleted, ObjectMissing
from dumpagent.observe.events.volume import VolumeFull, VolumeRoomy
from dumpagent.store.protocol import Store
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.companions.finder import CompanionFinder, CompanionLimits
from dumpagent.upload.companions.queue import CompanionQueue
from dumpagent.upload.companions.rest import Rest
from dumpagent.upload.companions.worker import CompanionWorker, GivesWay
from dumpagent.upload.entry import Counts
from dumpagent.upload.keeping.deletion import Deletion, Elsewhere
from dumpagent.upload.keeping.recheck import Recheck, Stored
from dumpagent.upload.keeping.reclaim import Turn
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.store_health import StoreHealth
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.finder import Met

_STEP_S = 0.4  # of judging, before somebody else has a turn


@dataclass(frozen=True, slots=True)
class Travel:
    """How companions travel: the maker of an uploader that ends when its event is set, limits, quiet time."""

    uploader: Callable[[threading.Event], Uploader]
    limits: CompanionLimits
    quiet_s: float
    deletion: Callable[[Tell], Deletion] | None = None


class Companions:
    """The main thread scans and judges, the upload thread calls `upload_next` and `reclaim`."""

    def __init__(
        self,
        travel: Travel,
        *,
        dumps: Backlog,
        store: Store,
        ledger: Ledger,
        store_health: StoreHealth,
        tell: Tell,
        stop: threading.Event,
        monotonic: Callable[[], float],
    ) -> None:
        self.queue = CompanionQueue(monotonic=monotonic)
        rest = Rest(quiet_s=travel.quiet_s, monotonic=monotonic)
        self.finder = CompanionFinder(
            dumps, self.queue, ledger, rest, tell, limits=travel.limits, monotonic=monotonic
        )
        self._worker = CompanionWorker(
            dumps=dumps,
            queue=self.queue,
            path_of=self.finder.path_of,
            gives_way=(gives_way := GivesWay(stop, dumps.has_work, monotonic=monotonic)),
            uploader=travel.uploader(gives_way),
            ledger=ledger,
            stored=rest.forget,
            store_health=store_health,
            tell=tell,
            monotonic=monotonic,
        )
        self._dumps, self._ledger, self._stop, self._told = dumps, ledger, stop, _as_companions(tell)
        self._monotonic = monotonic
        self._recheck = Recheck(store, ledger, self._told, monotonic=monotonic)
        self._deletion = travel.deletion(self._told) if travel.deletion else None

    @property
    def counts(self) -> Counts:
        return self.queue.counts()

    def follow(self, met: Met, *, whole: bool) -> float | None:
        """Take over what the finder of dumps met, judge what waits; for a moment, unless `whole`.

        Gives the seconds after which another look can tell more, None if only a change of the volume can.
        """
        self.finder.follow(met)
        recheck_s = self.finder.judge_some(until=self._monotonic() + _STEP_S)
        while whole and recheck_s == 0:
            recheck_s = self.finder.judge_some(until=self._monotonic() + _STEP_S)
        return recheck_s

    def are_overdue(self) -> bool:
        """Say whether a companion has waited for so long that it goes although dumps wait."""
        return self._worker.is_overdue()

    def upload_next(self) -> bool:
        """Upload the next companion that is due; False if there was nothing to do, or a dump is to go first."""
        return self._worker.upload_next()

    def ask_also(self, elsewhere: Elsewhere) -> None:
        """Delete only what `elsewhere` has too."""
        if self._deletion:
            self._deletion.ask_also(elsewhere)

    def recheck(self) -> None:
        """Confirm stored companions once more. Raises Unreachable."""
        _, missing = self._recheck.look(self._stored_files(), stopped=Turn(self._stop, self._dumps).is_over)
        for identity in missing:
            self.queue.is_missing(identity)

    def free_space(self) -> None:
        """Delete stored companions that nobody writes, where room is wanted. Raises Unreachable."""
        if not self._deletion or not self._deletion.wanted():
            return
        closed = [each for each in self._stored_files() if each.receipt.rechecked and _is_closed(each.dump)]
        for identity in self._deletion.reclaim(closed, stopped=Turn(self._stop, self._dumps).is_over):
            self.queue.is_missing(identity)

    def _stored_files(self) -> list[Stored]:
        receipts = ((file, self._ledger.receipt(file.identity)) for file in self.queue.stored())
        return [Stored(file, receipt) for file, receipt in receipts if receipt is not None]


def _is_closed(file: DumpFile) -> bool:
    """Say whether nobody has the file open for writing: to delete a log that is written frees nothing."""
    try:
        with open_dump(file) as opened:
            if take_read_lease(opened.fd) is not WriterState.NO_WRITER:
                return False
            release_lease(opened.fd)
            return True
    except OSError:
        return False


def _as_companions(tell: Tell) -> Tell:
    """Tell what becomes of a companion under names of its own, so that the counts of dumps are of dumps."""

    def told(event: Event, /) -> None:
        if isinstance(event, DumpDeleted):
            tell(CompanionDeleted(path=event.path, key=event.key, size_bytes=event.size_bytes))
        elif not isinstance(event, (ObjectMissing, VolumeFull, VolumeRoomy)):
            tell(event)

    return told
