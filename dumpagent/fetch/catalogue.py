"""The dumps in a bucket as its index lists them: one request for a thousand dumps."""

from __future__ import annotations

from dataclasses import replace

from dumpagent.dumps.keys import below
from dumpagent.fetch.stored import StoredDump, Wanted, indexed, is_dump_path
from dumpagent.index.entry import index_prefix
from dumpagent.index.reader import entries_among, read_entries
from dumpagent.store.protocol import Store, StoredObject

_DAY_S = 86400.0
_NEAR_DAYS = (2, 7)  # the newest dump of most workloads is not older


def list_dumps(
    store: Store, wanted: Wanted, *, prefix: str = "", now: float, limit: int | None = None
) -> list[StoredDump] | None:
    """Give the wanted dumps that have an index entry, oldest first; None if the bucket has no index.

    With `limit` the newest that many. Raises Refused, Unreachable.
    """
    wanted = replace(wanted, part=wanted.part.removeprefix(below(prefix)))
    found = [
        dump
        for entry in read_entries(store, prefix=prefix, since=wanted.since, now=now)
        if _is_wanted(dump := indexed(entry, prefix=prefix), wanted)
    ]
    if not found and not has_index(store, prefix=prefix):
        return None
    return _last(found, limit)


def list_everything(
    store: Store, wanted: Wanted, *, prefix: str = "", limit: int | None = None
) -> list[StoredDump]:
    """Give the wanted dumps, oldest first, with or without an index entry: one request for a thousand objects.

    Of an object without an entry key, size and time are known, and what its path tells of its application.
    Raises Refused, Unreachable.
    """
    wanted = replace(wanted, part=wanted.part.removeprefix(below(prefix)))
    root, folder = below(prefix), index_prefix(prefix)
    listed: list[StoredObject] = []
    entries: list[StoredObject] = []
    for stored in store.objects(root):
        if stored.key.startswith(folder):
            entries.append(stored)
        elif is_dump_path(stored.key.removeprefix(root)):
            listed.append(stored)
    by_path = {entry.path: entry for entry in entries_among(store, entries, prefix=prefix)}
    found = []
    for stored in listed:
        path = stored.key.removeprefix(root)
        entry = by_path.get(path)
        of_entry = entry is not None and entry.stored_bytes == stored.size_bytes
        dump = StoredDump(stored, path, entry=entry if of_entry else None)
        if _is_wanted(dump, wanted):
            found.append(dump)
    return _last(found, limit)


def newest_dumps(store: Store, wanted: Wanted, *, prefix: str = "", now: float) -> list[StoredDump] | None:
    """Give the wanted dumps of the last days, or of all time if those have none; None if there is no index.

    Raises Refused, Unreachable.
    """
    for days in _NEAR_DAYS:
        since = now - days * _DAY_S
        if wanted.since is None or wanted.since < since:
            found = list_dumps(store, replace(wanted, since=since), prefix=prefix, now=now)
            if found is None or found:
                return found
    return list_dumps(store, wanted, prefix=prefix, now=now)


def has_index(store: Store, *, prefix: str = "") -> bool:
    """Say whether the bucket has an index entry below the prefix. Raises Refused, Unreachable."""
    return next(iter(store.objects(index_prefix(prefix))), None) is not None


def _is_wanted(dump: StoredDump, wanted: Wanted) -> bool:
    if not is_dump_path(dump.path):
        return False  # where keys are reserved by index entries, companions have one too
    return wanted.by_listing(dump.path, dump.stored.modified) and wanted.by_metadata(dump)


def _last(dumps: list[StoredDump], limit: int | None) -> list[StoredDump]:
    ordered = sorted(dumps, key=lambda dump: (dump.when, dump.key))
    return ordered if limit is None else ordered[-limit:]
