"""Gives each stored dump its index entry, before its receipt."""

from __future__ import annotations

from collections.abc import Mapping

from dumpagent.dumps import metadata
from dumpagent.dumps.model import DumpFile, Verdict
from dumpagent.dumps.receipt import Receipt
from dumpagent.errors import Refused
from dumpagent.index.writer import entry_of_object, write_entry
from dumpagent.observe.events import Tell
from dumpagent.observe.events.store import IndexFailed, IndexRecovered
from dumpagent.observe.incident import Incident
from dumpagent.settings import Place
from dumpagent.store.protocol import Store
from dumpagent.store.reservation import is_same_dump, reserved_for

_HINT = "allow s3:PutObject below `.dumpagent/index/`; `dumpagent reindex` then writes the entries that are missing"


class Indexer:
    """Writes entries into `store`. A kill between dump and entry costs nothing: without a receipt the dump is looked
    for once more, and found, and gets its entry then.
    """

    def __init__(self, store: Store, place: Place, tell: Tell, *, prefix: str) -> None:
        self._store, self._place, self._prefix = store, place, prefix
        self._incident = Incident(tell, IndexFailed, IndexRecovered)

    def write(self, dump: DumpFile, verdict: Verdict, original: str, receipt: Receipt) -> None:
        """Write the entry of the dump that was just stored; `original` is the path that its JVM gave it. A store that refuses is told; the dump counts as stored.

        Raises Unreachable.
        """
        described = metadata.describe(
            dump,
            verdict,
            metadata.Contents(dump.size_bytes, receipt.crc32),
            original=original,
            place=self._place,
            now=receipt.uploaded_at,
        )
        if self._is_in_reservation(receipt.key, described):
            return
        entry = entry_of_object(
            receipt.key, receipt.stored_bytes, described, prefix=self._prefix, stored_at=receipt.uploaded_at
        )
        try:
            write_entry(self._store, entry, prefix=self._prefix)
        except Refused as error:
            self._incident.failed("index", IndexFailed(error=str(error), path=dump.path, hint=_HINT))
        else:
            self._incident.ended_for("index", IndexRecovered(path=dump.path))

    def _is_in_reservation(self, key: str, described: Mapping[str, str]) -> bool:
        """Say whether the dump has a reservation that stays, which is its entry."""
        if not self._store.must_reserve() or self._store.can_delete():
            return False
        kept = reserved_for(self._store, key, prefix=self._prefix)
        return kept is not None and is_same_dump(kept, described)
