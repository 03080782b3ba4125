"""Writes the index entry of a dump that the store has confirmed."""

from __future__ import annotations

from collections.abc import Mapping

from isal import isal_zlib

from dumpagent.dumps.keys import path_of
from dumpagent.dumps.metadata import read_metadata
from dumpagent.index.entry import IndexEntry, entry_of, key_of, to_json
from dumpagent.store.protocol import Body, Occupied, Store


def write_entry(store: Store, entry: IndexEntry, *, prefix: str = "") -> bool:
    """Store the entry, if it is not there; say whether it was missing. Raises Refused, Unreachable.

    The key holds all the facts, so an entry that is there says the same, and nothing is ever replaced.
    """
    content = to_json(entry)
    body = Body(content, isal_zlib.crc32(content))
    try:
        store.put(key_of(entry, prefix=prefix), body, {})
    except Occupied:
        return False
    return True


def entry_of_object(
    key: str, size_bytes: int, metadata: Mapping[str, str] | None, *, prefix: str, stored_at: float
) -> IndexEntry:
    """Give the entry of the dump under `key`, whose object has these metadata."""
    path = path_of(key, prefix=prefix)
    return entry_of(path, size_bytes, read_metadata(metadata), stored_at=stored_at)
