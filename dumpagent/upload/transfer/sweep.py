"""Aborts multipart uploads that nobody will finish: their dump is gone, or a kill came before they were noted.

Those that are noted are known to be ours. Of the others the store tells key and parts, and not who began them. So only
those count as ours whose key has an object or reservation with our node's name, or whose name says that an agent only
tried something out; and another agent can be at work on them until they have not changed for `QUIET_S`, by our own clock.
All others are left alone: that is what the bucket's lifecycle rule is for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from dumpagent.dumps import metadata
from dumpagent.dumps.keys import below, is_own_key
from dumpagent.dumps.model import Identity
from dumpagent.dumps.receipt import Journal
from dumpagent.errors import Refused
from dumpagent.index.lost import with_metadata
from dumpagent.observe.events import Tell
from dumpagent.observe.events.store import LeftoverAborted
from dumpagent.store.protocol import OpenUpload, Store
from dumpagent.store.reservation import release, reserved_for
from dumpagent.upload.transfer.multipart import give_up

# Longer than one part of 5 GiB takes at 12 Mbit/s, and than a pause between two tries of one dump.
QUIET_S = 3600.0


@dataclass(frozen=True, slots=True)
class _Sight:
    """What an upload was last seen to hold, and since when it holds that."""

    parts: tuple[tuple[int, str], ...]
    since: float


class Sweep:
    """Watches the open uploads under `prefix`, while one may be left: after an upload of this run, or one noted before."""

    def __init__(
        self,
        store: Store,
        journal: Journal,
        tell: Tell,
        *,
        prefix: str,
        node: str,
        quiet_s: float = QUIET_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._journal, self._tell = store, journal, tell
        self._prefix, self._below = prefix, below(prefix)
        self._node = node
        self._quiet_s, self._monotonic = quiet_s, monotonic
        self._seen: dict[str, _Sight] = {}
        self._gone_since: dict[Identity, float] = {}
        self._next: float | None = None  # None: nothing to sweep

    def expect(self) -> None:
        """Sweep at the next call: a dump was sent, so one of its uploads may have been left open."""
        self._next = self._monotonic()

    def sweep(
        self,
        *,
        present: Collection[Identity],
        settled: bool,
        stopped: Callable[[], bool] = lambda: False,
    ) -> int:
        """Abort what has been left alone for long enough, if it is time; give how many that were.

        `present` are the dumps on the volume. `settled`: none of them waits for its upload, so nobody of us will go on
        with one that is not noted. Raises Unreachable.
        """
        return self._give_up_gone(present) + self._sweep_unnoted(settled=settled, stopped=stopped)

    def _give_up_gone(self, present: Collection[Identity]) -> int:
        now = self._monotonic()
        gone = [upload for upload in self._journal.all_unfinished() if upload.identity not in present]
        # A volume that is away for a while takes its dumps along, and they are back with it.
        self._gone_since = {upload.identity: self._gone_since.get(upload.identity, now) for upload in gone}
        given_up = 0
        for upload in gone:
            if now - self._gone_since[upload.identity] >= self._quiet_s:
                try:
                    give_up(self._store, upload, prefix=self._prefix)
                except Refused:
                    continue  # not now: expired credentials, for one
                self._journal.forget_unfinished(upload.identity)
                self._tell(LeftoverAborted(key=upload.key, store=self._store.name))
                given_up += 1
        return given_up

    def _sweep_unnoted(self, *, settled: bool, stopped: Callable[[], bool]) -> int:
        if self._next is None or self._monotonic() < self._next:
            return 0
        try:
            left_open = self._store.open_uploads(self._below)
        except Refused:
            self._next = None  # not allowed to list, and that does not change from one dump to the next
            return 0
        noted = {upload.upload_id for upload in self._journal.all_unfinished()}
        ours = {
            upload.upload_id: upload
            for upload in left_open
            if upload.upload_id not in noted and not stopped() and self._is_ours(upload, settled=settled)
        }
        self._seen = {upload_id: sight for upload_id, sight in self._seen.items() if upload_id in ours}
        aborted = sum(self._is_quiet(upload) and self._abort(upload) for upload in ours.values())
        self._next = self._monotonic() + self._quiet_s if len(ours) > aborted else None
        return aborted

    def _is_ours(self, upload: OpenUpload, *, settled: bool) -> bool:
        if is_own_key(upload.key):
            return True
        try:
            there = self._store.look(upload.key)
            if there is None:
                kept = reserved_for(self._store, upload.key, prefix=self._prefix)
                return settled and metadata.is_of_node(kept, self._node)
            if there.reserved and not settled:
                return False
            described = with_metadata(self._store, there, prefix=self._prefix)
        except Refused:
            return False
        return metadata.is_of_node(described.metadata, self._node)

    def _is_quiet(self, upload: OpenUpload) -> bool:
        try:
            stored = self._store.parts(upload.key, upload.upload_id)
        except Refused:
            return False  # ended meanwhile, or the store does not say
        parts = tuple((part.number, part.etag) for part in stored)
        sight = self._seen.get(upload.upload_id)
        if sight is None or sight.parts != parts:
            sight = self._seen[upload.upload_id] = _Sight(parts, self._monotonic())
        return self._monotonic() - sight.since >= self._quiet_s

    def _abort(self, upload: OpenUpload) -> bool:
        try:
            self._store.abort(upload.key, upload.upload_id)
            there = self._store.look(upload.key)
            if there is None:
                kept = reserved_for(self._store, upload.key, prefix=self._prefix)
                if kept and metadata.is_of_node(kept, self._node):
                    release(self._store, upload.key, kept, prefix=self._prefix)
            elif there.reserved and metadata.is_of_node(there.metadata, self._node):
                self._store.delete(upload.key)
        except Refused:
            return False  # may not abort: the lifecycle rule will
        self._tell(LeftoverAborted(key=upload.key, store=self._store.name))
        return True
