"""The dumps on the volume and how far each has come: one table, from which the loop takes its work and every count.

A dump is *seen* once, and from then on it is either pending, uploaded or failed (lost from the disk before it was
stored), so `seen = uploaded + pending + failed` holds at any moment.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterable

from dumpagent.dumps.model import DumpFile, Identity, Verdict
from dumpagent.dumps.source import UploadTurn
from dumpagent.upload.entry import Changes, Counts, Entry, Stage

_NEVER = float("inf")
# How long an upload goes on while another application's dump waits: about as long as that one takes, so that large ones
# do not change places all the time.
_TURN_S, _LONGEST_TURN_S, _TURN_BYTES_PER_S = 3.0, 60.0, 50e6
_MOST_SERVED = 10_000  # owners and directories whose turn is remembered
_FIRST_RETRY_S, _LONGEST_RETRY_S = 1.0, 60.0
# Pending dumps that are kept track of, of one owner and in all; a few of each owner always are. Each takes a kilobyte.
_MOST_OF_OWNER, _MOST, _ALWAYS_OF_OWNER = 1000, 20_000, 10
_JUDGED_WITHIN_S = 5.0


class Backlog:
    """Safe to use from several threads. `monotonic` is the clock of ages and retries, seconds."""

    def __init__(
        self, *, monotonic: Callable[[], float], jitter: Callable[[], float] = random.random
    ) -> None:
        self._monotonic = monotonic
        self._jitter = jitter
        self._lock = threading.Condition()
        # By device and inode: a dump that grows or is renamed stays one.
        self._entries: dict[tuple[int, int], Entry] = {}
        self._seen = self._uploaded = self._failed = 0
        self._pending: Counter[int] = Counter()  # by owner
        self._scan = 0
        self.changes = 0  # grows with each change of which dumps are there, or finished
        self.busy_at = -_NEVER  # when a dump was last found or stored, monotonic
        self._turns, self._judging = Fairness(), Fairness()
        self._taken: Entry | None = None
        self.turn = UploadTurn(monotonic)  # of the dump that was taken last

    def begin_scan(self) -> None:
        """Begin to take note of which dumps are there."""
        with self._lock:
            self._scan += 1

    def finish_scan(self, volume: Hashable = None) -> list[DumpFile]:
        """Drop the dumps that no `update` since `begin_scan` had; give those that were lost before they were stored.

        Of a dump that was found on another volume than `volume` nothing is concluded.
        """
        with self._lock:
            lost: list[DumpFile] = []
            for key in [key for key, entry in self._entries.items() if entry.scan < self._scan]:
                entry = self._entries[key]
                if entry.stage is Stage.SENDING or entry.volume != volume:
                    continue  # its open descriptor keeps the bytes; the end of the upload decides
                self._drop(key, lost)
            self._pending = +self._pending
            self._turns.forget_all_but({entry.owner for entry in self._entries.values()})
            return lost

    def _drop(self, key: tuple[int, int], lost: list[DumpFile]) -> None:
        entry = self._entries.pop(key)
        self.changes += 1
        if entry.stage is not Stage.STORED:
            self._failed += 1
            self._pending[entry.owner] -= 1
            lost.append(entry.dump)

    def update(
        self,
        dumps: Iterable[DumpFile],
        *,
        stored: Callable[[Identity], bool],
        everything: bool,
        volume: Hashable = None,
    ) -> Changes:
        """Take over what a scan of `volume` found; `everything`: it looked everywhere, so what it did not find is gone.

        Of a dump that was found on another volume nothing is concluded. `stored` ones count as uploaded.
        """
        if everything:
            self.begin_scan()
        changes = Changes()
        with self._lock:
            for dump in dumps:
                self._take_over(dump, stored, changes, volume)
        if everything:
            changes.lost += self.finish_scan(volume)
        return changes

    def _take_over(
        self, dump: DumpFile, stored: Callable[[Identity], bool], changes: Changes, volume: Hashable
    ) -> None:
        key = (dump.device, dump.identity.inode)
        entry = self._entries.get(key)
        if entry is not None and entry.owner != dump.uid and entry.stage is not Stage.SENDING:
            # The inode of a dump that is gone has another user's file by now: its failures are not that one's.
            self._drop(key, changes.lost)
            entry = None
        if entry is not None:
            entry.scan, entry.volume = self._scan, volume
        self.changes += entry is None or entry.dump != dump
        if entry is not None and entry.stage is not Stage.STORED:
            if entry.dump != dump and entry.stage is not Stage.SENDING:
                grown = entry.dump.identity != dump.identity
                self._pending[entry.owner] -= 1
                entry.dump = dump
                self._pending[entry.owner] += 1
                if grown:
                    entry.stage, entry.verdict, entry.judge_at = Stage.WAITING, None, 0.0
            return
        if entry is not None and entry.dump.identity == dump.identity:
            entry.dump = dump
            return
        # Not known, or another dump in the place of a stored one.
        known = stored(dump.identity)
        if not known and not self._has_room(dump.uid):
            changes.left_out[dump.uid] += 1
            return
        self._seen += 1
        self._uploaded += known
        stage = Stage.STORED if known else Stage.WAITING
        now = self._monotonic()
        self._entries[key] = Entry(
            dump, stage, waiting_since=now, number=self._scan, scan=self._scan, volume=volume
        )
        if not known:
            self.busy_at = now
            self._pending[dump.uid] += 1
            changes.new.append(dump)

    def _has_room(self, owner: int) -> bool:
        own = self._pending[owner]
        return own < _ALWAYS_OF_OWNER or (own < _MOST_OF_OWNER and self._pending.total() < _MOST)

    def to_judge(self, most: int) -> list[Entry]:
        """Give up to `most` dumps of which a look can tell more now, in fair order."""
        now = self._monotonic()
        with self._lock:
            due = (e for e in self._entries.values() if e.stage is Stage.WAITING and e.judge_at <= now)
            return self._judging.order(due, most)

    def judged(self, entry: Entry, recheck_s: float | None) -> None:
        """Note that a waiting dump was looked at, and when another look can tell more (None: after the next scan)."""
        with self._lock:
            self._judging.serve(entry)
            entry.judge_at = _NEVER if recheck_s is None else self._monotonic() + recheck_s

    def judge_now(self, files: set[tuple[int, int]]) -> None:
        """Have these files (device, inode) looked at at once."""
        with self._lock:
            for key in files:
                if entry := self._entries.get(key):
                    entry.judge_at = 0.0

    def judge_all(self) -> None:
        """Have every waiting dump looked at of which only a change of the volume can tell more."""
        with self._lock:
            for entry in self._entries.values():
                if entry.judge_at == _NEVER:
                    entry.judge_at = 0.0

    def next_judging_s(self) -> float | None:
        """Give the seconds until the next look can tell more, None if only a change of the volume can."""
        with self._lock:
            waiting = [e.judge_at for e in self._entries.values() if e.stage is Stage.WAITING]
            least = min(waiting, default=_NEVER)
            return None if least == _NEVER else max(0.0, least - self._monotonic())

    def refresh(self, entry: Entry, dump: DumpFile) -> None:
        """Take over what a waiting dump is now, if it is still the same file."""
        with self._lock:
            same_file = (dump.device, dump.identity.inode) == (entry.dump.device, entry.dump.identity.inode)
            if entry.stage is Stage.WAITING and same_file:
                if entry.dump.identity != dump.identity:
                    entry.judge_at = 0.0
                entry.dump = dump

    def stage(self, dump: DumpFile) -> Stage | None:
        """Say how far a dump has come, None if it is not known."""
        with self._lock:
            entry = self._entries.get((dump.device, dump.identity.inode))
            return entry.stage if entry else None

    def entries(self) -> dict[tuple[int, int], Entry]:
        """Give all dumps that are known, by device and inode."""
        with self._lock:
            return dict(self._entries)

    def waiting(self) -> list[Entry]:
        """Give the dumps that are still to be judged."""
        return [entry for entry in self.entries().values() if entry.stage is Stage.WAITING]

    def ready(self, entry: Entry, dump: DumpFile, verdict: Verdict) -> None:
        """Put a dump up for upload, `dump` being what it is called now."""
        with self._lock:
            if entry.stage is Stage.WAITING:
                entry.dump, entry.verdict, entry.stage = dump, verdict, Stage.READY
                self.changes += 1
                if self._taken and self._taken.stage is Stage.SENDING:
                    self._let_wait(entry, self._taken)
                self._lock.notify_all()

    def rank(self, entry: Entry) -> tuple[int, ...]:
        """Give the place of an entry that is due: the least comes first."""
        return self._turns.rank(entry)

    def has_work(self) -> bool:
        """Say whether a dump can be uploaded now, or was just found and is about to be judged."""
        now = self._monotonic()
        with self._lock:
            return any(
                entry.not_before <= now
                if entry.stage is Stage.READY
                else entry.verdict is None and now - entry.waiting_since < _JUDGED_WITHIN_S
                for entry in self._entries.values()
                if entry.stage in (Stage.READY, Stage.WAITING)
            )

    def take(self, *, timeout_s: float) -> Entry | None:
        """Give the next dump to upload, owner by owner, of each the first seen first; None if none comes up within `timeout_s`."""
        deadline = self._monotonic() + timeout_s
        with self._lock:
            while True:
                now = self._monotonic()
                ready = [entry for entry in self._entries.values() if entry.stage is Stage.READY]
                due = [entry for entry in ready if entry.not_before <= now]
                if due:
                    # Of one owner's, those that failed before come last: a bad dump must not hold up the others.
                    chosen = min(due, key=self.rank)
                    self._turns.serve(chosen)
                    chosen.stage, chosen.sending_since = Stage.SENDING, now
                    self._taken = chosen
                    self.turn.begin()
                    for other in ready:
                        if other is not chosen:
                            self._let_wait(other, chosen)
                    return chosen
                wake_at = min([deadline, *(entry.not_before for entry in ready)])
                if now >= deadline:
                    return None
                self._lock.wait(max(0.0, wake_at - now))

    def _let_wait(self, entry: Entry, sending: Entry) -> None:
        """Have the upload under way make room for `entry` in time: a file of holes at once, any other between two parts.

        Whoever writes the largest file would make everybody wait for it.
        """
        if entry.dump.is_mostly_holes:
            return
        due_at = max(self._monotonic(), entry.not_before)
        if sending.dump.is_mostly_holes:
            self.turn.cut_from(due_at)
        if entry.folder != sending.folder:
            turn_s = min(_LONGEST_TURN_S, max(_TURN_S, entry.dump.size_bytes / _TURN_BYTES_PER_S))
            self.turn.over_from(max(due_at, sending.sending_since + turn_s))

    def has_stored(self, entry: Entry) -> None:
        """Note that the store holds the dump."""
        with self._lock:
            if entry.stage is Stage.SENDING:
                entry.stage, self.busy_at = Stage.STORED, self._monotonic()
                self._uploaded += 1
                self._pending[entry.owner] -= 1

    def stored(self) -> list[DumpFile]:
        """Give the dumps on the volume that the store holds."""
        return [entry.dump for entry in self.entries().values() if entry.stage is Stage.STORED]

    def identities(self) -> frozenset[Identity]:
        """Give all dumps that are known to be on the volume, stored or not."""
        return frozenset(entry.dump.identity for entry in self.entries().values())

    def is_missing(self, identity: Identity) -> None:
        """Note that the store no longer holds this dump: it is seen anew."""
        with self._lock:
            for entry in self._entries.values():
                if entry.stage is Stage.STORED and entry.dump.identity == identity:
                    self._seen += 1
                    self._pending[entry.owner] += 1
                    entry.stage, entry.verdict, entry.attempts, entry.judge_at = Stage.WAITING, None, 0, 0.0
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

    def put_back(self, entry: Entry) -> None:
        """Put a dump back whose upload gave way to another's: it goes on in its turn."""
        with self._lock:
            if entry.stage is Stage.SENDING:
                entry.stage = Stage.READY

    def judge_again(self, entry: Entry) -> None:
        """Put a dump back that is not the one that was judged."""
        with self._lock:
            if entry.stage is Stage.SENDING:
                entry.stage, entry.verdict, entry.judge_at = Stage.WAITING, None, 0.0

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
                self._seen, self._uploaded, self._failed, len(pending), self._monotonic() - oldest,
                writing=stages.count(Stage.WAITING), queued=stages.count(Stage.READY) - retrying,
                sending=stages.count(Stage.SENDING), retrying=retrying,
            )  # fmt: skip


class Fairness:
    """Whose turn it is: the owner who was served longest ago, of its directories the one that was."""

    def __init__(self) -> None:
        self._served: dict[object, int] = {}
        self._count = 0

    def serve(self, entry: Entry) -> None:
        """Note that the entry had its turn."""
        self._count += 1
        self._served[entry.owner] = self._served[entry.folder] = self._count
        if len(self._served) > _MOST_SERVED:  # an owner can make any number of directories
            latest = sorted(self._served.items(), key=lambda each: each[1])[_MOST_SERVED // 2 :]
            self._served = dict(latest)

    def rank(self, entry: Entry) -> tuple[int, int, int, int, int, int]:
        """Give the place of the entry: the least comes first. What its owner can choose, as its time, counts last.

        Files of holes come after all others: a size that costs nothing must not cost others their turn.
        """
        owner, folder = self._served.get(entry.owner, 0), self._served.get(entry.folder, 0)
        return (
            int(entry.dump.is_mostly_holes),
            owner,
            entry.attempts,
            folder,
            entry.number,
            entry.dump.identity.mtime_ns,
        )

    def order(self, entries: Iterable[Entry], most: int) -> list[Entry]:
        """Give up to `most` entries, each owner's turn by turn."""
        by_owner: dict[int, list[Entry]] = {}
        for entry in entries:
            by_owner.setdefault(entry.owner, []).append(entry)
        queues = [sorted(each, key=self.rank)[:most] for each in by_owner.values()]
        queues.sort(key=lambda queue: self.rank(queue[0]))
        turns = (
            queue[turn]
            for turn in range(max(map(len, queues), default=0))
            for queue in queues
            if turn < len(queue)
        )
        return [entry for entry, _ in zip(turns, range(most), strict=False)]

    def forget_all_but(self, owners: set[int]) -> None:
        """Forget those that have nothing here any more."""
        kept = {
            key: at
            for key, at in self._served.items()
            if (key[0] if isinstance(key, tuple) else key) in owners
        }
        self._served = kept
