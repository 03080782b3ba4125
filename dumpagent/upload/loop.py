"""Upload mode's order of things: scan, judge, bring, remember, prune; and what happens when one of them fails."""

from __future__ import annotations

import datetime as dt
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from traceback import format_exc

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.model import DumpFacts, DumpFile, State, Verdict
from dumpagent.observe import events as ev
from dumpagent.observe.events import Tell
from dumpagent.observe.trouble import Trouble
from dumpagent.store.protocol import LookRefused, Store
from dumpagent.upload.backlog import Backlog, Counts, Entry, Stage
from dumpagent.upload.claim import CannotClaim, StillWritten
from dumpagent.upload.companions import companions_of
from dumpagent.upload.fingerprint import DumpChanged, Stopped
from dumpagent.upload.judge import Judge
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.load import Errand
from dumpagent.upload.names import companion_base
from dumpagent.upload.parts import Progress
from dumpagent.upload.recheck import Recheck, Stored
from dumpagent.upload.retention import Retention
from dumpagent.upload.scan import Scan, dump_file, scan
from dumpagent.upload.send import Brought, Sender

_DAY_S = 86400.0
_RECLAIM_RETRY_S = 30.0
_CLAIM_RECHECK_S = 0.25
_STACK_TOLD = 5  # frames: enough to know the code, short enough for a line of the log
_NOT_READABLE = "run the agent as uid 0 with the capability DAC_READ_SEARCH: dumps are readable by their application alone"
Claim = Callable[[DumpFile, DumpFacts | None], DumpFile]
ShowProgress = Callable[[DumpFile], AbstractContextManager[Progress]]


@dataclass(frozen=True, slots=True)
class Pass:
    """What one `--once` pass did with the dumps that it found; `left` are those that a stop cut off."""

    uploaded: int = 0
    already_stored: int = 0
    waiting: int = 0
    failed: int = 0
    left: int = 0


@contextmanager
def _no_progress(_dump: DumpFile) -> Iterator[Progress]:
    yield lambda _bytes: None


class UploadLoop:
    """Everything that upload mode does, a step at a time. The caller owns threads, signals and waiting.

    `look` and `prune` belong to one thread, `bring_next` to another (or the same one).
    """

    def __init__(
        self,
        *,
        root: str,
        store: Store,
        ledger: Ledger,
        sender: Sender,
        judge: Judge,
        tell: Tell,
        stop: threading.Event,
        retention_days: float,
        claim: Claim | None = None,
        retention: Retention | None = None,
        progress: ShowProgress = _no_progress,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.backlog = Backlog(monotonic=monotonic)
        self.root = root
        self._store, self._ledger, self._sender, self._judge = store, ledger, sender, judge
        self._tell, self._stop, self._progress, self._monotonic = tell, stop, progress, monotonic
        self._retention_s = retention_days * _DAY_S
        self._store_trouble = Trouble(tell, ev.STORE_FAILED, ev.STORE_RECOVERED, monotonic=monotonic)
        self._dump_trouble = Trouble(tell, ev.UPLOAD_FAILED, ev.UPLOAD_RECOVERED, monotonic=monotonic)
        self._scan_trouble = Trouble(tell, ev.SCAN_FAILED, ev.SCAN_RECOVERED, monotonic=monotonic)
        self._retention = retention
        self._recheck = Recheck(store, ledger, tell, monotonic=monotonic)
        self._claim = claim
        self._claim_trouble = Trouble(tell, ev.CLAIM_FAILED, ev.CLAIM_RECOVERED, monotonic=monotonic)
        self._store_pause = _Pause()
        self._greeted = False  # the store has answered before
        self._unreadable: dict[str, str] = {}  # why, by path

    @property
    def counts(self) -> Counts:
        return self.backlog.counts()

    @property
    def root_trouble(self) -> str | None:
        """Say why the last scan could not look at the dump root; None if it could, or if there was none yet."""
        return self._unreadable.get(self.root)

    # -- finding ------------------------------------------------------------------------------------------------

    def look(self) -> float | None:
        """Scan the volume, judge what waits, put up what is due.

        Gives the seconds after which another look can tell more, None if only a change of the volume can.
        """
        began = self._monotonic()
        found = scan(self.root, skip=frozenset({self._ledger.directory}))
        for path in self._unreadable.keys() - found.unreadable.keys():
            self._scan_trouble.ended_for(path, path=path)
        self._unreadable = dict(found.unreadable)
        for path, reason in found.unreadable.items():
            self._scan_trouble.failed(path, reason, path=path, hint=_scan_hint(reason))
        self._tell(
            ev.SCAN_FINISHED,
            path=self.root,
            dumps=len(found.dumps),
            unreadable=len(found.unreadable),
            seconds=self._monotonic() - began,
        )
        if found.parts:
            self._take_over(found.dumps, everything=False)  # whose parts they are must be known first
        dumps = [*found.dumps, *self._orphans(found)]
        self._take_over(dumps, everything=found.complete)
        if found.complete:
            dropped = self._ledger.note_present(
                (dump.identity for dump in dumps), retention_s=self._retention_s
            )
            if dropped:
                self._tell(ev.RECEIPTS_PRUNED, count=len(dropped), oldest=dropped[0].key)
        return self._judge_waiting()

    def look_at(self, relpaths: Iterable[str]) -> float | None:
        """Look at these files, which may be finished, and judge what waits, without a scan. Gives the same as `look`."""
        dumps = []
        for relpath in relpaths:
            try:
                dump = dump_file(self.root, relpath, os.lstat(f"{self.root}/{relpath}"))
            except OSError:
                continue  # gone again, or unreadable: the next scan tells
            if dump:
                dumps.append(dump)
        self._take_over(dumps, everything=False)
        return self._judge_waiting()

    def _take_over(self, dumps: Iterable[DumpFile], *, everything: bool) -> None:
        changes = self.backlog.update(
            dumps, stored=lambda identity: self._ledger.receipt(identity) is not None, everything=everything
        )
        for dump in changes.new:
            self._tell(ev.DUMP_FOUND, path=dump.path, size_bytes=dump.size_bytes)
        for dump in changes.lost:
            self._judge.forget(dump)
            self._dump_trouble.forget(dump.identity.inode)
            self._tell(ev.DUMP_GONE, path=dump.path, size_bytes=dump.size_bytes)

    def _orphans(self, found: Scan) -> Iterator[DumpFile]:
        """Give the parts (X.hprof.p0) that are dumps of their own to us: their dump is settled, or gone."""
        by_path = {dump.relpath: dump for dump in found.dumps}
        for part in found.parts:
            dump = by_path.get(companion_base(part.relpath) or "")
            settled = dump is not None and self.backlog.stage(dump) not in (None, Stage.WAITING)
            if settled or (dump is None and found.complete) or self.backlog.stage(part):
                yield part

    def look_again(self) -> float | None:
        """Judge the dumps that wait, without a scan: what a recheck costs must not grow with the volume.

        Gives the same as `look`.
        """
        for entry in self.backlog.waiting():
            try:
                dump = dump_file(self.root, entry.dump.relpath, os.lstat(entry.dump.path))
            except OSError:
                continue  # gone, renamed or unreadable: the next scan tells
            if dump:
                self.backlog.refresh(entry, dump)
        return self._judge_waiting()

    def _judge_waiting(self) -> float | None:
        rechecks = [self._judge_one(entry) for entry in self.backlog.waiting()]
        # A truncated dump that is due brings its parts with it.
        rechecks += [self._judge_one(entry) for entry in self.backlog.waiting() if entry.verdict is None]
        return min((recheck_s for recheck_s in rechecks if recheck_s is not None), default=None)

    def _judge_one(self, entry: Entry) -> float | None:
        dump = entry.dump
        try:
            verdict = self._judge.judge(dump)
            entry.verdict = verdict
            if not verdict.due:
                return verdict.recheck_s
            dump = self._claimed(dump, verdict)
            parts = companions_of(dump) if verdict.state in (State.TRUNCATED, State.UNKNOWN) else []
        except StillWritten:
            return _CLAIM_RECHECK_S
        except FileNotFoundError:
            return None  # gone or renamed since the scan: the next scan tells
        except OSError as error:
            self._dump_trouble.failed(
                dump.identity.inode, f"cannot be read: {error.strerror}", path=dump.path, hint=_NOT_READABLE
            )
            return None
        self.backlog.ready(entry, dump, verdict)
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
            self._claim_trouble.failed("volume", str(error), path=dump.path, hint=error.hint)
            return dump
        if claimed.relpath != dump.relpath:
            self._claim_trouble.ended_for("volume", path=dump.path)
            self._tell(
                ev.DUMP_CLAIMED, path=dump.path, claimed_path=claimed.path, verdict=verdict.state.value
            )
        return claimed

    # -- bringing -----------------------------------------------------------------------------------------------

    def bring_next(self, *, timeout_s: float) -> Brought | DumpagentError | OSError | None:
        """Bring the next dump that is due to the store, waiting up to `timeout_s` for one.

        Gives how it was stored, why it was not, or None if there was nothing to do.
        """
        pause_s = self._store_pause.left_s(self._monotonic())
        if pause_s:
            self._stop.wait(min(timeout_s, pause_s))
            return None
        entry = self.backlog.take(timeout_s=timeout_s)
        return None if entry is None else self._bring(entry)

    def _bring(self, entry: Entry) -> Brought | DumpagentError | OSError | None:
        dump, verdict = entry.dump, entry.verdict
        if verdict is None:
            self.backlog.judge_again(entry)
            return None
        began = self._monotonic()
        try:
            with self._progress(dump) as advance:
                brought = self._sender.bring(Errand(dump, verdict), progress=advance)
        except Stopped:
            self.backlog.judge_again(entry)
            return None
        except DumpChanged as error:
            self._tell(ev.DUMP_CHANGED, path=dump.path, error=str(error), hint=error.hint)
            self.backlog.judge_again(entry)
            return error
        except FileNotFoundError as error:
            self.backlog.judge_again(entry)  # renamed or gone: the next scan tells
            return error
        except Unreachable as error:
            self._store_failed(entry, error)
            return error
        except DumpagentError as error:
            self._refused(entry, error)
            return error
        except OSError as error:
            delay_s = self.backlog.retry(entry)
            reason = f"cannot be read: {error.strerror}"
            self._tell(ev.ATTEMPT_FAILED, path=dump.path, fault="dump", error=reason)
            self._dump_trouble.failed(
                dump.identity.inode, reason, path=dump.path, hint=_NOT_READABLE, next_try_seconds=delay_s
            )
            return error
        except Exception as error:  # noqa: BLE001 - a fault of ours with one dump must not end the others' uploads
            self._tell(
                ev.AGENT_FAULTY, path=dump.path, error=f"{type(error).__name__}: {error}", trace=format_exc()
            )
            self.backlog.retry(entry)
            return DumpagentError(f"{type(error).__name__}: {error}")
        self.backlog.has_stored(entry)
        self._judge.forget(dump)
        self._store_pause.end()
        self._store_trouble.ended_for("store", store=self._store.name)
        self._dump_trouble.ended_for(dump.identity.inode, path=dump.path)
        receipt = brought.receipt
        facts = verdict.facts
        self._tell(
            ev.DUMP_UPLOADED if brought.sent_bytes or not receipt.stored_bytes else ev.DUMP_ALREADY_STORED,
            path=dump.path,
            key=receipt.key,
            size_bytes=dump.size_bytes,
            sent_bytes=brought.sent_bytes,
            seconds=self._monotonic() - began,
            delay_seconds=receipt.uploaded_at - dump.mtime,
            verdict=verdict.state.value,
            reason=verdict.reason,
            crc32=f"{receipt.crc32:08x}",
            jvm=facts.jvm if facts else None,
            cause=facts.cause.value if facts else None,
            dump_time=_iso(facts.dump_time_ms) if facts and facts.dump_time_ms else None,
            oom_stack=list(facts.oom_stack[:_STACK_TOLD]) or None if facts else None,
            resumed=True if brought.resumed else None,
            verified=receipt.verified,
        )
        return brought

    def _refused(self, entry: Entry, error: DumpagentError) -> None:
        """A store that refuses everybody is one trouble of the store, not one of each dump."""
        try:
            self._store.check()
        except LookRefused:
            pass  # may not list: says nothing about writing
        except (Refused, Unreachable) as of_the_store:
            self._store_failed(entry, of_the_store)
            return
        delay_s = self.backlog.retry(entry)
        self._tell(ev.ATTEMPT_FAILED, path=entry.dump.path, fault="dump", error=str(error))
        self._dump_trouble.failed(
            entry.dump.identity.inode,
            str(error),
            path=entry.dump.path,
            hint=error.hint or None,
            next_try_seconds=delay_s,
        )

    def note_store(self, error: DumpagentError | None) -> None:
        """Take note of how the store answered a question that was not about a dump."""
        self._tell(ev.STORE_CHECKED, store=self._store.name, usable=error is None)
        if error:
            self._store_trouble.failed("store", str(error), store=self._store.name, hint=error.hint or None)
            return
        recovered = self._store_trouble.ended_for("store", store=self._store.name)
        if not recovered and not self._greeted:
            self._tell(ev.STORE_ANSWERED, store=self._store.name)
        self._greeted = True

    def _store_failed(self, entry: Entry, error: DumpagentError) -> None:
        delay_s = self.backlog.retry(entry)
        self._store_pause.begin(self._monotonic(), delay_s)
        self._tell(ev.ATTEMPT_FAILED, path=entry.dump.path, fault="store", error=str(error))
        self._store_trouble.failed(
            "store", str(error), store=self._store.name, hint=error.hint or None, pending=self.counts.pending
        )

    # -- making room --------------------------------------------------------------------------------------------

    def reclaim(self) -> None:
        """Look once more at what was stored, and delete what the policy allows to be deleted.

        Asks the store, so it belongs to the thread that brings.
        """
        if self._retention is None or self._store_pause.left_s(self._monotonic()):
            return
        receipts = ((dump, self._ledger.receipt(dump.identity)) for dump in self.backlog.stored())
        stored = [Stored(dump, receipt) for dump, receipt in receipts if receipt is not None]
        try:
            stored, missing = self._recheck.look(stored, stopped=self._stop.is_set)
            missing += self._retention.reclaim(stored, stopped=self._stop.is_set)
        except Unreachable as error:
            self._store_pause.begin(self._monotonic(), _RECLAIM_RETRY_S)
            self.note_store(error)
            return
        for identity in missing:
            self.backlog.is_missing(identity)

    # -- one pass -----------------------------------------------------------------------------------------------

    def run_once(self, *, dry_run: bool = False) -> Pass:
        """Look once and bring everything that is due; each dump is tried once."""
        self.look()
        uploaded = already_stored = failed = 0
        while not self._stop.is_set():
            entry = self.backlog.take(timeout_s=0)
            if entry is None:
                break
            if dry_run:
                self._foresee(entry)
                continue
            outcome = self._bring(entry)
            if isinstance(outcome, Brought):
                if outcome.sent_bytes or not outcome.receipt.stored_bytes:
                    uploaded += 1
                else:
                    already_stored += 1
            elif outcome is not None:
                failed += 1
        if self._stop.is_set():
            return Pass(uploaded, already_stored, failed=failed, left=self.counts.pending - failed)
        if not dry_run:
            self.reclaim()
        waiting = self.backlog.waiting()
        for entry in waiting:
            if entry.verdict:
                self._tell(ev.DUMP_WAITING, path=entry.dump.path, reason=entry.verdict.reason)
        unreadable = sum(1 for entry in waiting if entry.verdict is None) + len(self._unreadable)
        return Pass(uploaded, already_stored, len(waiting), failed + unreadable)

    def _foresee(self, entry: Entry) -> None:
        assert entry.verdict is not None  # noqa: S101 - READY entries have one
        key, there = self._sender.foresee(Errand(entry.dump, entry.verdict))
        self._tell(
            ev.DUMP_WOULD_UPLOAD,
            path=entry.dump.path,
            key=key,
            size_bytes=entry.dump.size_bytes,
            verdict=entry.verdict.state.value,
            action="nothing: the store holds it already" if there else "upload",
        )


class _Pause:
    """How long nobody may bother the store."""

    def __init__(self) -> None:
        self._until = 0.0

    def begin(self, now: float, seconds: float) -> None:
        self._until = max(self._until, now + seconds)

    def end(self) -> None:
        self._until = 0.0

    def left_s(self, now: float) -> float:
        return max(0.0, self._until - now)


def _iso(milliseconds: int) -> str | None:
    try:
        return dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return None


def _scan_hint(reason: str) -> str | None:
    if "exist" in reason:
        return "is the volume mounted? DUMP_ROOT must be the directory that the JVMs write to"
    return _NOT_READABLE if "ermission" in reason else None
