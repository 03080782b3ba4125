"""Ends multipart uploads that nobody will finish, and takes away the marks that they leave."""

from __future__ import annotations

from dumpagent.errors import DumpagentError
from dumpagent.store.protocol import Store
from dumpagent.upload import label
from dumpagent.upload.ledger import Unfinished
from dumpagent.upload.lookup import Lookup, is_our_mark


class Leftovers:
    """What an upload that was given up leaves in `store`."""

    def __init__(self, store: Store, lookup: Lookup) -> None:
        self._store = store
        self._lookup = lookup

    def give_up(self, upload: Unfinished) -> None:
        """Abort an upload of ours and take our mark from its key. The ledger is the caller's."""
        self._store.abort(upload.key, upload.upload_id)
        there = self._lookup.look(upload.key)
        contents = label.Contents(upload.identity.size_bytes, upload.crc32)
        if there and is_our_mark(there, contents):
            self._store.delete(upload.key)

    def clear(self, key: str) -> None:
        """Abort what is still open under a key that has its object.

        Whoever began it: completing it could only replace the object, or be refused. Whoever is at it goes on
        to the next key and loses nothing but bytes sent.
        """
        try:
            for left in self._store.open_uploads(key):
                if left.key == key:
                    self._store.abort(key, left.upload_id)
        except DumpagentError:
            return  # the dump is safe; a store that does not list uploads has a lifecycle rule for them
