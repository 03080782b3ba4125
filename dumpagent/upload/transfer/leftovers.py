"""Gives up multipart uploads of our own that are noted in the ledger."""

from __future__ import annotations

from dumpagent.errors import Refused
from dumpagent.store.protocol import Store
from dumpagent.upload.ledger import Unfinished
from dumpagent.upload.transfer import metadata
from dumpagent.upload.transfer.standing import Lookup, is_our_mark


class Leftovers:
    """What an upload that was given up leaves in `store`."""

    def __init__(self, store: Store, lookup: Lookup) -> None:
        self._store = store
        self._lookup = lookup

    def give_up(self, upload: Unfinished) -> None:
        """Abort an upload of ours and take our mark from its key. The ledger is the caller's."""
        try:
            self._store.abort(upload.key, upload.upload_id)
        except Refused:
            pass  # may not abort: the bucket's lifecycle rule does
        there = self._lookup.look(upload.key)
        contents = metadata.Contents(upload.identity.size_bytes, upload.crc32)
        if there and is_our_mark(there, contents):
            self._store.delete(upload.key)
