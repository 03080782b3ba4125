"""Deletes what a plan names, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dumpagent.errors import Refused
from dumpagent.prune.plan import Doomed, Plan
from dumpagent.store.protocol import Store


class Deleter(Protocol):
    """Deletes objects for good."""

    def erase(self, key: str) -> None:
        """Delete the object with all its versions. No error if there is none. Raises Refused (a lock, a hold, a
        missing right), Unreachable.
        """


@dataclass(slots=True)
class Pruned:
    """What a prune has done so far. `kept`: dumps that the store would not let go, each with why."""

    deleted: int = 0
    freed_bytes: int = 0
    kept: int = 0


def carry_out(
    store: Store,
    deleter: Deleter,
    plan: Plan,
    *,
    stopped: Callable[[], bool],
    deleted: Callable[[Doomed], None] = lambda _doomed: None,
    refused: Callable[[Doomed, str], None] = lambda _doomed, _why: None,
) -> Pruned:
    """Delete what the plan names, one dump after the other. Raises Unreachable; what is deleted then stays deleted.

    A dump whose object is no longer the one of the plan is left alone.
    """
    pruned = Pruned()
    for doomed in plan.doomed:
        if stopped():
            break
        try:
            size_bytes = _delete(store, deleter, doomed)
        except Refused as error:
            pruned.kept += 1
            refused(doomed, str(error))
            continue
        if size_bytes is None:
            pruned.kept += 1
            refused(doomed, "the object is no longer the one that was planned")
            continue
        pruned.deleted += 1
        pruned.freed_bytes += size_bytes
        deleted(doomed)
    for key in plan.stale_keys:
        if stopped():
            break
        try:
            deleter.erase(key)
        except Refused:
            continue  # an entry too many does no harm
    return pruned


def _delete(store: Store, deleter: Deleter, doomed: Doomed) -> int | None:
    found = store.look(doomed.dump.key)
    planned = doomed.dump.stored
    if found is None or (found.size_bytes, found.etag) != (planned.size_bytes, planned.etag):
        return None
    # The dump before its reports: where a lock keeps it, they stay with it.
    deleter.erase(doomed.dump.key)
    for stored in doomed.beside:
        deleter.erase(stored.key)
    deleter.erase(doomed.entry_key)
    return doomed.size_bytes
