"""Brings the dumps that are due to the store, one after the other, and says what became of each."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from dumpagent.dumps.model import DumpFile, State, Verdict
from dumpagent.dumps.receipt import Receipt
from dumpagent.dumps.source import SourceChanged, Stopped
from dumpagent.dumps.text import iso_time_ms
from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.kernel.children import Precedence
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import (
    AttemptFailed,
    DumpAlreadyStored,
    DumpChanged,
    DumpUploaded,
    UploadFailed,
    UploadRecovered,
)
from dumpagent.observe.incident import Incident
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.entry import Entry
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.oom_thread import OomThreadSearch
from dumpagent.upload.store_health import StoreHealth
from dumpagent.upload.transfer.job import Job
from dumpagent.upload.transfer.multipart import Progress
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.judge import Judge
from dumpagent.upload.volume.unreadable import NOT_READABLE

_STACK_TOLD = 5  # frames: enough to know the code, short enough for a line of the log
_HOW_TO_KEEP_DUMPS_WHOLE = (
    "give JVMs time to write (a liveness probe with patience, a longer grace period) and the volume room"
)
_VICTIM_WAIT_S = 2.0  # the next dump waits as long
ShowProgress = Callable[[DumpFile], AbstractContextManager[Progress]]
Summarise = Callable[[DumpFile, Verdict, Receipt], None]  # has a stored dump summarised; never waits for that
Outcome = Receipt | DumpagentError | OSError | None


def no_summary(_dump: DumpFile, _verdict: Verdict, _receipt: Receipt) -> None:
    """Summarise nothing."""


@contextmanager
def no_progress(_dump: DumpFile) -> Iterator[Progress]:
    """Show nothing."""
    yield lambda _bytes: None


class UploadWorker:
    """Belongs to one thread. `dump_incident` is told of what is wrong with one dump, `store_health` with the store.

    `finds_thread`: the thread that ran out of memory is searched for meanwhile.
    """

    def __init__(
        self,
        *,
        backlog: Backlog,
        uploader: Uploader,
        ledger: Ledger,
        judge: Judge,
        store_health: StoreHealth,
        dump_incident: Incident[UploadFailed, UploadRecovered],
        tell: Tell,
        stop: threading.Event,
        progress: ShowProgress,
        barrier: Barrier,
        precedence: Precedence,
        finds_thread: bool = True,
        monotonic: Callable[[], float],
    ) -> None:
        self._backlog, self._uploader, self._judge, self._store_health = (
            backlog,
            uploader,
            judge,
            store_health,
        )
        self._ledger = ledger
        self._dump_incident, self._tell, self._stop = dump_incident, tell, stop
        self._progress, self._barrier, self._monotonic = progress, barrier, monotonic
        self.summarise: Summarise = no_summary
        self._precedence, self._finds_thread = precedence, finds_thread

    def upload_next(self, *, timeout_s: float) -> Outcome:
        """Upload the next dump that is due, waiting up to `timeout_s` for one.

        Gives how it was stored, why it was not, or None if there was nothing to do.
        """
        pause_s = self._store_health.pause_left_s()
        if pause_s:
            self._stop.wait(min(timeout_s, pause_s))
            return None
        entry = self.take(timeout_s=timeout_s)
        return None if entry is None else self.upload(entry)

    def take(self, *, timeout_s: float) -> Entry | None:
        """Give the next dump that is due, for `upload`; None if none comes up within `timeout_s`."""
        return self._backlog.take(timeout_s=timeout_s)

    def upload(self, entry: Entry) -> Outcome:
        """Upload this dump, which was taken from the backlog, and put it where it belongs there. Gives the same."""
        with self._precedence.taken():
            return self._bring(entry)

    def _bring(self, entry: Entry) -> Outcome:
        dump, verdict = entry.dump, entry.verdict
        if verdict is None:
            self._backlog.judge_again(entry)
            return None
        began = self._monotonic()
        if self._finds_thread and (entry.victim is None or entry.victim.dump.identity != dump.identity):
            entry.victim = OomThreadSearch(dump, verdict)
        try:
            with self._progress(dump) as advance:
                receipt = self._uploader.upload(Job(dump, verdict), self._ledger, progress=advance)
            self._barrier.run(
                "note a summary", lambda: self.summarise(dump, verdict, receipt), path=dump.path
            )
            self._ledger.record(receipt)
        except Stopped:
            self._backlog.put_back(entry)
            return None
        except SourceChanged as error:
            self._tell(DumpChanged(path=dump.path, error=str(error), hint=error.hint))
            self._backlog.judge_again(entry)
            return error
        except FileNotFoundError as error:
            self._backlog.judge_again(entry)  # renamed or gone: the next scan tells
            return error
        except Unreachable as error:
            self._store_failed(entry, error)
            return error
        except DumpagentError as error:
            self._refused(entry, error)
            return error
        except OSError as error:
            delay_s = self._backlog.retry(entry)
            reason = f"cannot be read: {error.strerror}"
            self._tell(AttemptFailed(path=dump.path, fault="dump", error=reason))
            self._dump_incident.failed(
                dump.identity.inode,
                UploadFailed(error=reason, path=dump.path, hint=NOT_READABLE, next_try_seconds=delay_s),
            )
            return error
        except Exception as error:  # noqa: BLE001 - a fault of ours with one dump must not end the others' uploads
            self._barrier.note("upload", error, path=dump.path)
            self._backlog.retry(entry)
            return DumpagentError(f"{type(error).__name__}: {error}")
        self._backlog.has_stored(entry)
        self._judge.forget(dump)
        self._store_health.has_stored()
        self._dump_incident.ended_for(dump.identity.inode, UploadRecovered(path=dump.path))
        seconds = self._monotonic() - began
        self._tell_stored(entry, verdict, receipt, seconds=seconds)
        return receipt

    def _tell_stored(self, entry: Entry, verdict: Verdict, receipt: Receipt, *, seconds: float) -> None:
        dump, facts = entry.dump, verdict.facts
        victim, entry.victim = entry.victim, None
        oom_thread = victim.name(wait_s=_VICTIM_WAIT_S if receipt.is_news else 0) if victim else None
        if victim and victim.fault:
            self._barrier.note("find the thread that ran out of memory", victim.fault, path=dump.path)
        told = (DumpUploaded if receipt.is_news else DumpAlreadyStored)(
            path=dump.path,
            key=receipt.key,
            size_bytes=dump.size_bytes,
            sent_bytes=receipt.sent_bytes,
            seconds=seconds,
            delay_seconds=receipt.uploaded_at - dump.mtime,
            verdict=verdict.state.value,
            reason=verdict.reason,
            hint=_HOW_TO_KEEP_DUMPS_WHOLE if verdict.state is State.TRUNCATED else None,
            crc32=f"{receipt.crc32:08x}",
            jvm=facts.jvm if facts else None,
            cause=facts.cause.value if facts else None,
            dump_time=iso_time_ms(facts.dump_time_ms) if facts else None,
            oom_thread=oom_thread,
            oom_stack=tuple(facts.oom_stack[:_STACK_TOLD]) or None if facts else None,
            resumed=True if receipt.resumed else None,
            verified=receipt.verified,
        )
        self._tell(told)

    def _refused(self, entry: Entry, error: DumpagentError) -> None:
        """A store that refuses everybody is one trouble of the store, not one of each dump."""
        of_the_store = self._store_health.refuses_everybody()
        if of_the_store:
            self._store_failed(entry, of_the_store)
            return
        delay_s = self._backlog.retry(entry)
        self._tell(AttemptFailed(path=entry.dump.path, fault="dump", error=str(error)))
        self._dump_incident.failed(
            entry.dump.identity.inode,
            UploadFailed(
                error=str(error),
                path=entry.dump.path,
                hint=error.hint or None,
                next_try_seconds=delay_s,
            ),
        )

    def _store_failed(self, entry: Entry, error: DumpagentError) -> None:
        delay_s = self._backlog.retry(entry)
        self._store_health.leave_alone(delay_s)
        self._tell(AttemptFailed(path=entry.dump.path, fault="store", error=str(error)))
        self._store_health.failed(error, pending=self._backlog.counts().pending)
