"""Makes the index of a bucket anew from the dumps in it, for those that have no entry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from dumpagent.dumps.keys import below
from dumpagent.errors import Refused
from dumpagent.index.entry import index_prefix
from dumpagent.index.reader import entries_among
from dumpagent.index.writer import entry_of_object, write_entry
from dumpagent.store.protocol import Store, StoredObject

_WORKERS = 16


@dataclass(frozen=True, slots=True)
class Missing:
    """The objects that have no entry, and how many have one."""

    objects: list[StoredObject]
    indexed: int


def find_missing(store: Store, *, prefix: str, is_dump: Callable[[str], bool]) -> Missing:
    """Give the dumps without an entry; `is_dump` is asked about each path below S3_PREFIX. Raises Refused, Unreachable."""
    root, folder = below(prefix), index_prefix(prefix)
    entries, objects = [], []
    for stored in store.objects(root):
        if stored.key.startswith(folder):
            entries.append(stored)
        elif is_dump(stored.key.removeprefix(root)):
            objects.append(stored)
    known = {
        (root + entry.path, entry.stored_bytes) for entry in entries_among(store, entries, prefix=prefix)
    }
    missing = [stored for stored in objects if (stored.key, stored.size_bytes) not in known]
    return Missing(missing, len(objects) - len(missing))


def write_missing(
    store: Store,
    objects: Iterable[StoredObject],
    *,
    prefix: str,
    done: Callable[[int], None] = lambda _count: None,
    refused: Callable[[str, Refused], None] = lambda _key, _error: None,
) -> int:
    """Write the entries of these objects and give how many were written.

    Each object is asked for its metadata; one without those of an agent gets no entry, since an entry would say more
    than is known. `refused` is told of an object that the store does not show. Raises Unreachable.
    """

    def write(listed: StoredObject) -> bool:
        try:
            found = store.look(listed.key)
            if found is None or "crc32" not in (found.metadata or {}):
                return False
            entry = entry_of_object(
                found.key, found.size_bytes, found.metadata, prefix=prefix, stored_at=found.modified
            )
            return write_entry(store, entry, prefix=prefix)
        except Refused as error:
            refused(listed.key, error)
            return False
        finally:
            done(1)

    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="index")
    try:
        return sum(pool.map(write, objects))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
