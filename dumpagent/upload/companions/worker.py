"""Uploads companions while no dump waits, and gives way to each dump that comes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from dumpagent.dumps.model import DumpFile, State
from dumpagent.dumps.source import SourceChanged, Stopped
from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.observe.events import Tell
from dumpagent.observe.events.companions import CompanionFailed, CompanionRecovered, CompanionUploaded
from dumpagent.observe.incident import Incident
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.companions.queue import CompanionQueue
from dumpagent.upload.entry import Entry
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.store_health import StoreHealth
from dumpagent.upload.transfer.job import Job
from dumpagent.upload.transfer.uploader import Uploader

# Where dumps never end, since a tenant makes them, a companion goes every so often, for so long.
_OVERDUE_S, _GRANTED_S = 60.0, 5.0


class GivesWay(threading.Event):
    """Is set when the agent ends, and as soon as a dump is due: what is under way then goes on later."""

    def __init__(
        self, stop: threading.Event, has_work: Callable[[], bool], *, monotonic: Callable[[], float]
    ) -> None:
        super().__init__()
        self._stop, self._has_work, self._monotonic = stop, has_work, monotonic
        self._granted_until = 0.0

    def grant(self) -> None:
        """Let the next companion be uploaded although dumps are due, for a few seconds."""
        self._granted_until = self._monotonic() + _GRANTED_S

    def is_set(self) -> bool:
        """Say whether the companion's upload is to be left."""
        granted = self._monotonic() < self._granted_until
        return self._stop.is_set() or (not granted and self._has_work())

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of the agent."""
        return self._stop.wait(timeout)


class CompanionWorker:
    """Belongs to the thread that uploads. `path_of` gives the path under which a file is stored, `stored` is told of each."""

    def __init__(
        self,
        *,
        dumps: Backlog,
        queue: CompanionQueue,
        path_of: Callable[[DumpFile], str],
        gives_way: GivesWay,
        uploader: Uploader,
        ledger: Ledger,
        stored: Callable[[DumpFile], object],
        store_health: StoreHealth,
        tell: Tell,
        monotonic: Callable[[], float],
    ) -> None:
        self._dumps, self._queue, self._path_of, self._uploader = dumps, queue, path_of, uploader
        self._ledger, self._stored, self._store_health, self._tell = ledger, stored, store_health, tell
        self._gives_way, self._monotonic = gives_way, monotonic
        self._none_since = monotonic()  # since when no companion was uploaded, or none was due
        self._incident = Incident(tell, CompanionFailed, CompanionRecovered, monotonic=monotonic)

    def upload_next(self) -> bool:
        """Upload the next companion that is due; False if there was nothing to do, or a dump is to go first."""
        if self._store_health.pause_left_s():
            return False
        if self._dumps.has_work():
            if not self.is_overdue():
                return False
            self._gives_way.grant()
        self._none_since = self._monotonic()
        entry = self._queue.take(timeout_s=0)
        if entry is None:
            return False
        self._upload(entry)
        return True

    def is_overdue(self) -> bool:
        """Say whether a companion has been due for so long that it goes although dumps wait."""
        if self._monotonic() - self._none_since < _OVERDUE_S:
            return False
        if self._queue.has_ready():
            return True
        self._none_since = self._monotonic()
        return False

    def _upload(self, entry: Entry) -> None:
        file, began = entry.dump, self._monotonic()
        verdict = entry.verdict
        if verdict is None or verdict.state is not State.UNKNOWN:
            self._queue.judge_again(entry)
            return
        try:
            receipt = self._uploader.upload(Job(file, verdict, stored_as=self._path_of(file)), self._ledger)
            self._ledger.record(receipt)
        except Stopped:
            self._queue.put_back(entry)
            return
        except (SourceChanged, FileNotFoundError):
            self._queue.judge_again(entry)
            return
        except (DumpagentError, OSError) as error:
            delay_s = self._queue.retry(entry)
            if isinstance(error, Unreachable):
                self._store_health.leave_alone(delay_s)
                self._store_health.failed(error, pending=self._dumps.counts().pending)
            self._incident.failed(
                file.identity.inode,
                CompanionFailed(error=str(error), path=file.path, hint=getattr(error, "hint", None) or None),
            )
            return
        self._queue.has_stored(entry)
        self._stored(file)
        self._store_health.has_stored()
        self._incident.ended_for(file.identity.inode, CompanionRecovered(path=file.path))
        self._tell(
            CompanionUploaded(
                path=file.path,
                key=receipt.key,
                size_bytes=file.size_bytes,
                sent_bytes=receipt.sent_bytes,
                seconds=self._monotonic() - began,
            )
        )
