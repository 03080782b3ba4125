"""Reads the index: one request for a thousand entries, and none for a dump."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator

from dumpagent.errors import Refused
from dumpagent.index.entry import IndexEntry, day_of, entry_in, from_json, index_prefix, needs_body
from dumpagent.store.protocol import Store, StoredObject

_DAY_S = 86400.0
# Up to so many days are listed one by one; beyond, one listing of everything costs less than its empty days.
_DAYS_APART = 8
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


def _entries(store: Store, objects: Iterable[StoredObject], prefix: str) -> Iterator[IndexEntry]:
    folder = index_prefix(prefix)
    for stored in objects:
        if not stored.key.startswith(folder):
            continue
        if needs_body(stored.key):
            entry = _read(store, stored.key)
        else:
            entry = entry_in(stored.key, prefix=prefix)
        if entry:
            yield entry


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
