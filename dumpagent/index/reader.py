"""Reads the index: one request for a thousand entries, and none for a dump."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from dumpagent.dumps.keys import path_of
from dumpagent.dumps.metadata import read_metadata
from dumpagent.errors import Refused
from dumpagent.index.entry import (
    IndexEntry,
    day_of,
    entry_in,
    entry_of,
    from_json,
    index_prefix,
    needs_body,
)
from dumpagent.store.protocol import Store, StoredObject
from dumpagent.store.reservation import is_same_dump, read_reservation, reservations_prefix

_DAY_S = 86400.0
# Up to so many days are listed one by one; beyond, one listing of everything costs less than its empty days.
_DAYS_APART = 8
_WORKERS = 16
_BODY_BYTES = 64 << 10  # an entry has at most a few kilobytes


def read_entries(
    store: Store, *, prefix: str = "", since: float | None = None, now: float
) -> Iterator[IndexEntry]:
    """Give the entries of dumps made at `since` or later (seconds since the epoch), in no order.

    One dump has one entry: of two, made by different versions, the later key counts. Raises Refused, Unreachable.
    """
    found = {entry.path: entry for entry in _entries(store, _listed(store, prefix, since, now), prefix)}
    return (entry for entry in found.values() if since is None or entry.when >= since)


def entries_among(store: Store, objects: Iterable[StoredObject], *, prefix: str = "") -> list[IndexEntry]:
    """Give the entries that stand among listed objects. Raises Refused, Unreachable."""
    return list(_entries(store, objects, prefix))


def _listed(store: Store, prefix: str, since: float | None, now: float) -> Iterator[StoredObject]:
    # A day more than today: the clock that wrote an entry may be ahead of this one.
    last = now + _DAY_S
    if since is None or last - since > _DAYS_APART * _DAY_S:
        yield from store.objects(index_prefix(prefix))
        return
    day = dt.datetime.fromtimestamp(since, dt.UTC).date()
    while day.isoformat() <= day_of(last):
        yield from store.objects(index_prefix(prefix, day.isoformat()))
        day += dt.timedelta(days=1)
    for stored in store.objects(reservations_prefix(prefix)):
        if stored.modified >= since - _DAY_S:
            yield stored


def _entries(store: Store, objects: Iterable[StoredObject], prefix: str) -> Iterator[IndexEntry]:
    folder, reserved_below = index_prefix(prefix), reservations_prefix(prefix)
    reserved: list[str] = []
    paths: set[str] = set()
    for stored in objects:
        if not stored.key.startswith(folder):
            continue
        if stored.key.startswith(reserved_below):
            reserved.append(stored.key)
            continue
        if needs_body(stored.key):
            entry = _read(store, stored.key)
        else:
            entry = entry_in(stored.key, prefix=prefix)
        if entry:
            paths.add(entry.path)
            yield entry
    yield from _of_reservations(store, reserved, paths, prefix)


def _of_reservations(
    store: Store, keys: Collection[str], known: Collection[str], prefix: str
) -> Iterator[IndexEntry]:
    """Give the entries that reservations are, where those stay; `known` are paths that have an entry beside."""

    def entry(key: str) -> IndexEntry | None:
        kept = read_reservation(store, key)
        if kept is None or (path := path_of(kept.key, prefix=prefix)) in known:
            return None
        try:
            there = store.look(kept.key)
        except Refused:
            return None
        if there is None or not there.size_bytes:
            return None  # its upload is under way, or was given up
        if "crc32" in (there.metadata or {}) and not is_same_dump(there.metadata or {}, kept.metadata):
            return None
        return entry_of(path, there.size_bytes, read_metadata(kept.metadata), stored_at=there.modified)

    if not keys:
        return
    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="index") as pool:
        yield from (found for found in pool.map(entry, keys) if found)


def _read(store: Store, key: str) -> IndexEntry | None:
    body = b""
    try:
        for chunk in store.read(key, length=_BODY_BYTES):
            body += chunk
            if len(body) > _BODY_BYTES:
                return None
    except Refused:
        return None  # deleted since the listing, or not ours to read
    return from_json(body)
