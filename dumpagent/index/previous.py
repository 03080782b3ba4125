"""Which stored dump of a workload came before another one, by the index alone."""

from __future__ import annotations

from dumpagent.dumps.keys import path_of
from dumpagent.index.entry import IndexEntry
from dumpagent.index.reader import read_entries
from dumpagent.store.protocol import Store

_DAYS_S = 7 * 86400.0


def previous_entry(store: Store, key: str, *, prefix: str = "", now: float) -> IndexEntry | None:
    """Give the newest whole dump of the last week that is older than the one under `key`, and of the same workload.

    Where the workload is not known, the same directory stands for it. None if there is none, or the dump itself has no
    entry. Raises Refused, Unreachable.
    """
    path = path_of(key, prefix=prefix)
    entries = list(read_entries(store, prefix=prefix, since=now - _DAYS_S, now=now))
    own = next((entry for entry in entries if entry.path == path), None)
    if own is None:
        return None
    older = [
        entry
        for entry in entries
        if entry.path != path
        and entry.when <= own.when
        and entry.verdict != "truncated"
        and _writer(entry) == _writer(own)
    ]
    return max(older, key=lambda entry: entry.when, default=None)


def _writer(entry: IndexEntry) -> tuple[str, ...]:
    if entry.workload:
        return entry.cluster, entry.namespace, entry.workload
    return entry.cluster, entry.node, entry.path.rpartition("/")[0]
