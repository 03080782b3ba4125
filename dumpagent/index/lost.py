"""What the index tells of an object whose store has dropped its metadata."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import replace

from dumpagent.dumps.keys import path_of
from dumpagent.dumps.text import iso_time
from dumpagent.errors import DumpagentError
from dumpagent.index.entry import IndexEntry, day_of, index_prefix
from dumpagent.index.reader import entries_among
from dumpagent.store.protocol import Store, StoredObject
from dumpagent.store.reservation import reserved_for

_DAY_S = 86400.0
_SINCE = "0.2"  # the first version whose metadata tell the application's pod, as entries do


def with_metadata(store: Store, found: StoredObject, *, prefix: str) -> StoredObject:
    """Give the object with the metadata that its store has dropped, as far as the index has them; else as it is."""
    if found.metadata is None or "crc32" in found.metadata or "node" in found.metadata:
        return found
    try:
        kept = reserved_for(store, found.key, prefix=prefix)
        if kept is None:
            path = path_of(found.key, prefix=prefix)
            entries = (entry for entry in _near(store, found.modified, prefix) if entry.path == path)
            entry = next((entry for entry in entries if entry.stored_bytes == found.size_bytes), None)
            kept = _metadata_of(entry) if entry else None
    except DumpagentError:
        return found
    return replace(found, metadata=kept) if kept else found


def entry_of_time(store: Store, key: str, when: float, *, prefix: str) -> IndexEntry | None:
    """Give the entry of the object under `key` if its dump was made in that second. Raises Refused, Unreachable."""
    second = dt.datetime.fromtimestamp(int(when), dt.UTC).strftime("%H%M%SZ!")
    listed = store.objects(index_prefix(prefix, day_of(when)) + second)
    path = path_of(key, prefix=prefix)
    return next((entry for entry in entries_among(store, listed, prefix=prefix) if entry.path == path), None)


def _near(store: Store, stored_at: float, prefix: str) -> Iterator[IndexEntry]:
    """Give the entries of the day on which an object was stored, of the day before, and then all."""
    for when in (stored_at, stored_at - _DAY_S):
        yield from entries_among(store, store.objects(index_prefix(prefix, day_of(when))), prefix=prefix)
    yield from entries_among(store, store.objects(index_prefix(prefix)), prefix=prefix)


def _metadata_of(entry: IndexEntry) -> dict[str, str]:
    told = {
        "node": entry.node,
        "cluster": entry.cluster,
        "namespace": entry.namespace,
        "pod": entry.pod,
        "workload": entry.workload,
        "dump-time": iso_time(entry.when) or "",
        "verdict": entry.verdict,
        "cause": entry.cause,
        "original-size": "" if entry.original_bytes is None else str(entry.original_bytes),
        "crc32": "" if entry.crc32 is None else f"{entry.crc32:08x}",
        "agent-version": _SINCE,
    }
    return {name: value for name, value in told.items() if value}
