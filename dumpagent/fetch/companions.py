"""The files beside a dump, as the store has them: error files, GC logs, flight recordings."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from dumpagent.dumps.keys import below
from dumpagent.errors import DumpagentError
from dumpagent.fetch.stored import StoredDump
from dumpagent.store.protocol import Store, StoredObject

_WORKERS = 8


def companions_of(store: Store, dump: StoredDump, *, prefix: str = "") -> list[StoredObject]:
    """Give the files beside the dump, by name. One request. Raises Refused, Unreachable."""
    folder = dump.companion_folder
    return [] if folder is None else sorted(store.objects(below(prefix) + folder), key=lambda each: each.key)


def companions_of_each(
    store: Store, dumps: Sequence[StoredDump], *, prefix: str = ""
) -> dict[str, list[StoredObject]]:
    """Give the files beside each of the dumps, by the dump's key; one request each. What the store refuses is left out."""

    def ask(dump: StoredDump) -> list[StoredObject]:
        try:
            return companions_of(store, dump, prefix=prefix)
        except DumpagentError:
            return []  # the list of dumps is what was asked for

    pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="companions")
    try:
        found = dict(zip((dump.key for dump in dumps), pool.map(ask, dumps), strict=True))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return {key: companions for key, companions in found.items() if companions}


def companion_name(companion: StoredObject) -> str:
    """Give the name of the file, as its JVM gave it."""
    return companion.key.rpartition("/")[2]
