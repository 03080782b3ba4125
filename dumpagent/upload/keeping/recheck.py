"""Looks at a stored dump's object once more, some time after its upload, before anybody relies on it being there.

Two agents may write one key in the same moment. Stores that answer conditional writes from several servers (OpenStack
Swift) then tell both that theirs is stored, and keep one: what was confirmed right after the upload can be gone a
moment later. The dump is still on the volume then, and goes to its next key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from dumpagent.dumps import metadata
from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.dumps.receipt import Receipt
from dumpagent.errors import Refused, Unreachable
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import ObjectMissing
from dumpagent.store.protocol import Store
from dumpagent.upload.ledger import Ledger

# Longer than the writes that can still be under way when ours was confirmed.
SETTLE_S = 30.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A dump on the volume with the receipt that says that the store has it."""

    dump: DumpFile
    receipt: Receipt


def is_there(store: Store, receipt: Receipt, *, owner: int | None = None) -> bool | None:
    """Say whether the store holds the dump of this receipt now; None if it does not tell. Raises Unreachable.

    With `owner`, the uid of the file that is to be deleted, the object must say that it is of that owner: length and
    CRC32 alone are public, and can be forged.
    """
    try:
        found = store.look(receipt.key)
    except Unreachable:
        raise
    except Refused:
        return None
    contents = metadata.Contents(receipt.identity.size_bytes, receipt.crc32)
    if found is None or found.size_bytes != receipt.stored_bytes:
        return False
    if owner is not None:
        told = (found.metadata or {}).get("uid")
        if told is None:
            return None  # of an agent before 0.2, or from a store that drops metadata
        if told != str(owner):
            return False
    if not receipt.described and not metadata.is_ours(found.metadata):
        return True  # a store that drops metadata, and dropped these
    return metadata.holds(found.metadata, contents)


class Recheck:
    """Confirms each receipt a second time, `settle_s` after its upload, once."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        tell: Tell,
        *,
        settle_s: float = SETTLE_S,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._ledger, self._tell = store, ledger, tell
        self._settle_s, self._now, self._monotonic = settle_s, now, monotonic
        self._known_since: dict[Identity, float] = {}

    def look(
        self, stored: Iterable[Stored], *, stopped: Callable[[], bool] = lambda: False
    ) -> tuple[list[Stored], list[Identity]]:
        """Give the dumps with their receipts as they are now, and those that the store turned out not to hold.

        The receipts of the latter are dropped: they are to be uploaded again. Raises Unreachable.
        """
        kept, missing = [], []
        for each in stored:
            if stopped() or each.receipt.rechecked or not self._is_settled(each.receipt):
                kept.append(each)
                continue
            there = is_there(self._store, each.receipt)
            if there is False:
                self._ledger.forget(each.receipt.identity)
                missing.append(each.receipt.identity)
                self._tell(ObjectMissing(path=each.dump.path, key=each.receipt.key, store=self._store.name))
            else:  # there, or the store does not tell: asking again and again would not change that
                receipt = replace(each.receipt, rechecked=True)
                self._ledger.record(receipt)
                kept.append(Stored(each.dump, receipt))
            self._known_since.pop(each.receipt.identity, None)
        return kept, missing

    def _is_settled(self, receipt: Receipt) -> bool:
        since = self._known_since.setdefault(receipt.identity, self._monotonic())
        return max(self._monotonic() - since, self._now() - receipt.uploaded_at) >= self._settle_s
