"""Keeps the replica's table of dumps: what is finished on the volume is to be stored there too."""

from __future__ import annotations

from collections.abc import Callable

from dumpagent.dumps.files import found_again
from dumpagent.dumps.model import DumpFile, Identity, Verdict
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.entry import Entry, Stage
from dumpagent.upload.ledger import Ledger

_AT_ONCE = 16
_UNFINISHED_RECHECK_S = 1.0
_GONE_RECHECK_S = 60.0


class Follower:
    """Follows `first`, the table of the first destination, in `own`.

    `take_over` belongs to the thread that scans, so that what is counted does not depend on the replica; `put_up` to the
    thread that uploads there. `judge` is asked about what an earlier run of the agent judged. Raises OSError.
    """

    def __init__(
        self, first: Backlog, own: Backlog, ledger: Ledger, judge: Callable[[DumpFile], Verdict]
    ) -> None:
        self._first, self._own, self._ledger, self._judge = first, own, ledger, judge
        self._seen = -1
        self._is_full = False

    def take_over(self) -> list[DumpFile]:
        """Take over what is new; give what left the volume before the replica had it."""
        changes = self._first.changes  # before the look: what changes meanwhile is seen the next time
        if changes == self._seen and not self._is_full:
            return []
        self._seen = changes
        own = self._own.entries()
        there = [
            entry.dump for key, entry in self._first.entries().items() if key in own or _is_finished(entry)
        ]
        self._own.begin_scan()
        changed = self._own.update(there, stored=self._has_receipt, everything=False)
        self._is_full = bool(changed.left_out)
        return changed.lost + self._own.finish_scan()

    def put_up(self) -> None:
        """Put up for upload what is finished."""
        while entries := self._own.to_judge(_AT_ONCE):
            known = self._first.entries()
            for entry in entries:
                first = known.get((entry.dump.device, entry.dump.identity.inode))
                self._own.judged(entry, self._put_up(entry, first))

    def _has_receipt(self, identity: Identity) -> bool:
        return self._ledger.receipt(identity) is not None

    def _put_up(self, entry: Entry, first: Entry | None) -> float | None:
        """Put a dump up for upload if it is finished. Gives the seconds until another look can tell more."""
        dump = entry.dump
        if first is None or not _is_finished(first) or first.dump.identity != dump.identity:
            return _UNFINISHED_RECHECK_S
        try:
            if found_again(dump).identity != dump.identity:
                return _UNFINISHED_RECHECK_S  # it was written over: the next scan tells
            verdict = first.verdict or self._judge(dump)
        except OSError:
            return _GONE_RECHECK_S  # gone or renamed, which the next scan tells
        if not verdict.due:
            return verdict.recheck_s or _GONE_RECHECK_S
        self._own.ready(entry, dump, verdict)
        return None


def _is_finished(entry: Entry) -> bool:
    return entry.stage is not Stage.WAITING
