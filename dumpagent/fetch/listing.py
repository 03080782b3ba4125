"""Which dumps the store holds: one listing, and one question per object for its metadata, many at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from dumpagent.dumps.keys import below
from dumpagent.errors import Refused
from dumpagent.fetch.stored import StoredDump, Wanted, is_dump_path
from dumpagent.store.protocol import Store, StoredObject

WORKERS = 16  # a question costs 2 ms of CPU here and a round trip; more threads only wait for each other
# A node's clock may be ahead of the store's by so much before the store refuses its uploads.
# Source: S3 API Reference, "Error responses", RequestTimeTooSkewed.
_SKEW_S = 900.0

Looked = Callable[[int], None]


def find_objects(store: Store, wanted: Wanted, *, prefix: str = "") -> list[StoredObject]:
    """Give the objects that may be wanted, newest first, without their metadata. Raises Refused, Unreachable."""
    root = below(prefix)
    app = wanted.app.strip("/")
    wanted = replace(wanted, part=wanted.part.removeprefix(root))  # whoever has the whole key gives it
    found = [
        stored
        for stored in store.objects(f"{root}{app}/" if app else root)
        if is_dump_path(stored.key.removeprefix(root))
        and wanted.by_listing(stored.key.removeprefix(root), stored.modified)
    ]
    return sorted(found, key=lambda stored: (-stored.modified, stored.key))


def look_at(
    store: Store,
    objects: Sequence[StoredObject],
    wanted: Wanted,
    *,
    prefix: str = "",
    limit: int | None = None,
    looked: Looked = lambda _count: None,
) -> list[StoredDump]:
    """Give those of `objects` (newest first) that are wanted, with their metadata, oldest dump first.

    With `limit` the newest that many, and no more objects are asked than that takes. `looked` is told of each that
    was asked. An object that vanished meanwhile is left out. Raises Unreachable, Refused.
    """
    kept: list[StoredDump] = []
    for batch, next_stored in _batches(objects, WORKERS * 4 if limit is None else WORKERS):
        kept += [dump for dump in _ask(store, batch, prefix, looked) if wanted.by_metadata(dump)]
        if limit is not None:
            kept = sorted(kept, key=_age, reverse=True)[:limit]
            # What was stored so long ago cannot have been dumped after the oldest of those.
            if next_stored is not None and len(kept) == limit and next_stored + _SKEW_S < kept[-1].when:
                break
    return sorted(kept, key=_age)


def _age(dump: StoredDump) -> tuple[float, str]:
    return dump.when, dump.key


def _batches(
    objects: Sequence[StoredObject], size: int
) -> Iterator[tuple[Sequence[StoredObject], float | None]]:
    """Give the objects in pieces, each with the time of the first one behind it."""
    for at in range(0, len(objects), size):
        following = objects[at + size : at + size + 1]
        yield objects[at : at + size], following[0].modified if following else None


def _ask(store: Store, objects: Sequence[StoredObject], prefix: str, looked: Looked) -> list[StoredDump]:
    root = below(prefix)

    def ask(listed: StoredObject) -> StoredDump | None:
        path = listed.key.removeprefix(root)
        try:
            found = store.look(listed.key)
        except Refused as error:
            return StoredDump(listed, path, refused=str(error))
        return None if found is None else StoredDump(found, path)

    pool = ThreadPoolExecutor(min(WORKERS, max(1, len(objects))), thread_name_prefix="look")
    answers: list[StoredDump] = []
    try:
        for answer in pool.map(ask, objects):
            looked(1)
            if answer:
                answers.append(answer)
    finally:
        # After Ctrl-C nobody waits for a store that hangs.
        pool.shutdown(wait=False, cancel_futures=True)
    return answers
