"""The dumps on the volume and how far each has come: one table, from which the loop takes its work and every count.

A dump is *seen* once, and from then on it is either pending, uploaded or failed (lost from the disk before it was
stored), so `seen = uploaded + pending + failed` holds at any moment.
"""

from __future__ import annotations

import enum
import random
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field

from dumpagent.dumps.model import DumpFile, Identity, Verdict
from dumpagent.upload.oom_thread import OomThreadSearch

_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0


class Stage(enum.Enum):
    """How far a dump has come."""

    WAITING = "waiting"  # not finished, as far as is known
    READY = "ready"  # may be uploaded
    SENDING = "sending"
    STORED = "stored"


@dataclass(slots=True)
class Entry:
    """One dump on the volume. `not_before` (monotonic) is when it may be tried again."""

    dump: DumpFile
    stage: Stage = Stage.WAITING
    verdict: Verdict | None = None
    attempts: int = 0
    victim: OomThreadSearch | None = None
    not_before: float = 0.0
    waiting_since: float = 0.0
    volume: Hashable = None  # on which it was found


@dataclass(frozen=True, slots=True)
class Counts:
    """The table in numbers, all taken at one moment; `oldest_pending_s` is 0 if none is pending."""

    seen: int = 0
    uploaded: int = 0
    failed: int = 0
    pending: int = 0
    oldest_pending_s: float = 0.0
    writing: int = 0  # pending: not finished, as far as is known
    queued: int = 0  # pending: finished, and its turn comes
    sending: int = 0
    retrying: int = 0  # pending: an attempt failed, and there will be another


@dataclass(slots=True)
class Changes:
    """What a scan changed: dumps that are new, and those that vanished before they were stored."""

    new: list[DumpFile] = field(default_factory=list)
    lost: list[DumpFile] = field(default_factory=list)


class Backlog:
    """Safe to use from several threads. `monotonic` is the clock of ages and retries, seconds."""

    def __init__(
        self, *, monotonic: Callable[[], float], jitter: Callable[[], float] = random.random
    ) -> None:
        self._monotonic = monotonic
        self._jitter = jitter
        self._lock = threading.Condition()
        self._entries: dict[
            tuple[int, int], Entry
        ] = {}  # by device and inode: a dump that grows or is renamed stays one
        self._seen = self._uploaded = self._failed = 0

    def update(
        self,
        dumps: Iterable[DumpFile],
        *,
        stored: Callable[[Identity], bool],
        everything: bool,
        volume: Hashable = None,
    ) -> Changes:
        """Take over what a scan of `volume` found; `everything`: it looked everywhere, so what it did not find is gone.

        Of a dump that was found on another volume nothing is concluded.

        Dumps for which `stored` is true count as uploaded without more ado.
        """
        changes = Changes()
        now = self._monotonic()
        with self._lock:
            missing = set(self._entries)
            for dump in dumps:
                key = (dump.device, dump.identity.inode)
                missing.discard(key)
                entry = self._entries.get(key)
                if entry is not None:
                    entry.volume = volume
                if entry is not None and entry.stage is not Stage.STORED:
                    if entry.dump != dump and entry.stage is not Stage.SENDING:
                        grown = entry.dump.identity != dump.identity
                        entry.dump = dump
                        if grown:
                            entry.stage, entry.verdict = Stage.WAITING, None
                    continue
                if entry is not None and entry.dump.identity == dump.identity:
                    entry.dump = dump
                    continue
                # Not known, or another dump in the place of a stored one.
                self._seen += 1
                known = stored(dump.identity)
                self._uploaded += known
                self._entries[key] = Entry(
                    dump, Stage.STORED if known else Stage.WAITING, waiting_since=now, volume=volume
                )
                if not known:
                    changes.new.append(dump)
            for key in missing if everything else ():
                entry = self._entries[key]
                if entry.stage is Stage.SENDING or entry.volume != volume:
                    continue  # its open descriptor keeps the bytes; the end of the upload decides
                del self._entries[key]
                if entry.stage is not Stage.STORED:
                    self._failed += 1
                    changes.lost.append(entry.dump)
        return changes

    def refresh(self, entry: Entry, dump: DumpFile) -> None:
        """Take over what a waiting dump is now, if it is still the same file."""
        with self._lock:
            same_file = (dump.device, dump.identity.inode) == (entry.dump.device, entry.dump.identity.inode)
            if entry.stage is Stage.WAITING and same_file:
                entry.dump = dump

    def stage(self, dump: DumpFile) -> Stage | None:
        """Say how far a dump has come, None if it is not known."""
        with self._lock:
            entry = self._entries.get((dump.device, dump.identity.inode))
            return entry.stage if entry else None

    def waiting(self) -> list[Entry]:
        """Give the dumps that are still to be judged."""
        with self._lock:
            return [entry for entry in self._entries.values() if entry.stage is Stage.WAITING]

    def ready(self, entry: Entry, dump: DumpFile, verdict: Verdict) -> None:
        """Put a dump up for upload, `dump` being what it is called now."""
        with self._lock:
            if entry.stage is Stage.WAITING:
                entry.dump, entry.verdict, entry.stage = dump, verdict, Stage.READY
                self._lock.notify_all()

    def take(self, *, timeout_s: float) -> Entry | None:
        """Give the next dump to upload, the longest finished first; None if none comes up within `timeout_s`."""
        deadline = self._monotonic() + timeout_s
        with self._lock:
            while True:
                now = self._monotonic()
                ready = [entry for entry in self._entries.values() if entry.stage is Stage.READY]
                due = [entry for entry in ready if entry.not_before <= now]
                if due:
                    # Those that failed before come last: one bad dump must not hold up the others.
                    chosen = min(due, key=lambda entry: (entry.attempts, entry.dump.identity.mtime_ns))
                    chosen.stage = Stage.SENDING
                    return chosen
                wake_at = min([deadline, *(entry.not_before for entry in ready)])
                if now >= deadline:
                    return None
                self._lock.wait(max(0.0, wake_at - now))

    def has_stored(self, entry: Entry) -> None:
        """Note that the store holds the dump."""
        with self._lock:
            if entry.stage is Stage.SENDING:
                entry.stage = Stage.STORED
                self._uploaded += 1

    def stored(self) -> list[DumpFile]:
        """Give the dumps on the volume that the store holds."""
        with self._lock:
            return [entry.dump for entry in self._entries.values() if entry.stage is Stage.STORED]

    def identities(self) -> frozenset[Identity]:
        """Give all dumps that are known to be on the volume, stored or not."""
        with self._lock:
            return frozenset(entry.dump.identity for entry in self._entries.values())

    def is_missing(self, identity: Identity) -> None:
        """Note that the store no longer holds this dump: it is seen anew."""
        with self._lock:
            for entry in self._entries.values():
                if entry.stage is Stage.STORED and entry.dump.identity == identity:
                    self._seen += 1
                    entry.stage, entry.verdict, entry.attempts = Stage.WAITING, None, 0
                    entry.waiting_since = self._monotonic()

    def retry(self, entry: Entry) -> float:
        """Put a dump back that could not be stored. Gives the seconds until it may be tried again: they double up to
        a minute, with jitter, so that many agents do not come back to a recovering store at the same moment."""
        with self._lock:
            entry.attempts += 1
            ceiling = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2.0 ** min(entry.attempts - 1, 16))
            delay_s = ceiling * (0.5 + self._jitter() / 2)
            entry.not_before = self._monotonic() + delay_s
            if entry.stage is Stage.SENDING:
                entry.stage = Stage.READY
            return delay_s

    def judge_again(self, entry: Entry) -> None:
        """Put a dump back that is not the one that was judged."""
        with self._lock:
            if entry.stage is Stage.SENDING:
                entry.stage, entry.verdict = Stage.WAITING, None

    def wake(self) -> None:
        """Make a waiting `take` look again."""
        with self._lock:
            self._lock.notify_all()

    def counts(self) -> Counts:
        """Give all counts of one moment."""
        with self._lock:
            pending = [entry for entry in self._entries.values() if entry.stage is not Stage.STORED]
            oldest = min((entry.waiting_since for entry in pending), default=self._monotonic())
            stages = [entry.stage for entry in pending]
            retrying = sum(1 for entry in pending if entry.stage is Stage.READY and entry.attempts)
            return Counts(
                self._seen,
                self._uploaded,
                self._failed,
                len(pending),
                self._monotonic() - oldest,
                writing=stages.count(Stage.WAITING),
                queued=stages.count(Stage.READY) - retrying,
                sending=stages.count(Stage.SENDING),
                retrying=retrying,
            )
