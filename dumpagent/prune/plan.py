"""What a prune of a bucket deletes, object by object, before anything is deleted."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from dumpagent.dumps.companion import is_companion_path
from dumpagent.dumps.keys import below
from dumpagent.fetch.stored import REPORT_ENDINGS, StoredDump, indexed, is_dump_path
from dumpagent.index.entry import IndexEntry, index_prefix, key_of
from dumpagent.index.reader import entries_among
from dumpagent.pending.attempts import name_of, notes_by_dump
from dumpagent.prune.policy import Decision, Prunable, Rules, decide
from dumpagent.store.protocol import Store, StoredObject
from dumpagent.store.reservation import reservation_key


@dataclass(frozen=True, slots=True)
class Doomed:
    """One dump that goes, then what is `beside` it, then its index entry `entry_key`.

    So a prune that is cut off leaves no dump that `ls` does not show, and a lock on the dump keeps all of it; an entry
    without a dump, and what was beside one, goes with the next prune.
    """

    dump: StoredDump
    beside: tuple[StoredObject, ...]
    entry_key: str

    @property
    def size_bytes(self) -> int:
        return self.dump.size_bytes + sum(stored.size_bytes for stored in self.beside)


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes. `kept` are the decisions about what stays; `unknown` counts objects without an index entry, which a
    prune leaves alone; `stale_keys` are those of entries, and of what was beside a dump, whose dump is gone.
    """

    doomed: tuple[Doomed, ...]
    kept: tuple[Decision[StoredDump], ...]
    unknown: int
    stale_keys: tuple[str, ...]

    @property
    def size_bytes(self) -> int:
        return sum(doomed.size_bytes for doomed in self.doomed)


def make_plan(store: Store, rules: Rules, *, prefix: str, now: float) -> Plan:
    """Give the plan; nothing is changed. One request for a thousand objects. Raises Refused, Unreachable."""
    root, folder = below(prefix), index_prefix(prefix)
    objects: dict[str, StoredObject] = {}
    listed: list[StoredObject] = []
    for stored in store.objects(root):
        if stored.key.startswith(folder):
            listed.append(stored)
        else:
            objects[stored.key] = stored
    entries = entries_among(store, listed, prefix=prefix)
    dumps = {entry.path: dump for entry in entries if (dump := _dump_of(entry, objects, root))}
    decisions = decide((_candidate(dump) for dump in dumps.values()), rules, now=now)
    small = objects | {stored.key: stored for stored in listed}
    folders = _by_folder(objects, root)
    notes = notes_by_dump(objects.values(), prefix=prefix)
    for decision in decisions:
        if not decision.goes:
            folders.pop(decision.candidate.dump.companion_folder or "", None)  # two dumps may share one
    doomed = [
        _doomed(decision.candidate.dump, small, folders, notes, prefix)
        for decision in decisions
        if decision.goes
    ]
    gone = [entry for entry in entries if root + entry.path not in objects]
    return Plan(
        doomed=tuple(doomed),
        kept=tuple(decision for decision in decisions if not decision.goes),
        unknown=sum(
            1 for key in objects if is_dump_path(path := key.removeprefix(root)) and path not in dumps
        ),
        stale_keys=tuple(key for entry in gone for key in _left_of(entry, objects, folders, notes, prefix)),
    )


def _dump_of(entry: IndexEntry, objects: dict[str, StoredObject], root: str) -> StoredDump | None:
    """Give the dump of an entry; None if the object under its key is gone, or is another one."""
    stored = objects.get(root + entry.path)
    if stored is None or stored.size_bytes != entry.stored_bytes:
        return None
    return StoredDump(stored, entry.path, entry=entry)


def _candidate(dump: StoredDump) -> Prunable[StoredDump]:
    assert dump.entry is not None  # noqa: S101 - made by _dump_of
    return Prunable(
        dump, _workload(dump), float(dump.entry.when), dump.original_size_bytes or dump.size_bytes
    )


def _workload(dump: StoredDump) -> Hashable:
    """Tell applications apart: by cluster, namespace and workload, else pod; by node and directory if neither is known."""
    owner = dump.owner
    if owner.namespace and (owner.workload or owner.pod):
        return dump.cluster, owner.namespace, owner.workload or owner.pod
    return dump.cluster, dump.node, dump.application


def _by_folder(objects: dict[str, StoredObject], root: str) -> dict[str, list[StoredObject]]:
    """Give the files beside dumps by their folder, relative to `root`."""
    folders: dict[str, list[StoredObject]] = {}
    for key, stored in objects.items():
        path = key.removeprefix(root)
        if is_companion_path(path):
            folders.setdefault(path[: path.rfind("/") + 1], []).append(stored)
    return folders


def _doomed(
    dump: StoredDump,
    objects: dict[str, StoredObject],
    folders: dict[str, list[StoredObject]],
    notes: dict[str, list[StoredObject]],
    prefix: str,
) -> Doomed:
    assert dump.entry is not None  # noqa: S101 - made by _dump_of
    keys = [*(dump.key + ending for ending in REPORT_ENDINGS), reservation_key(dump.key, prefix=prefix)]
    beside = [found for key in keys if (found := objects.get(key))]
    companions = folders.pop(dump.companion_folder or "", [])
    beside += notes.get(name_of(dump.path), [])
    return Doomed(dump, (*beside, *companions), key_of(dump.entry, prefix=prefix))


def _left_of(
    entry: IndexEntry,
    objects: dict[str, StoredObject],
    folders: dict[str, list[StoredObject]],
    notes: dict[str, list[StoredObject]],
    prefix: str,
) -> list[str]:
    beside = [below(prefix) + entry.path + ending for ending in REPORT_ENDINGS]
    companions = folders.pop(indexed(entry, prefix=prefix).companion_folder or "", [])
    return [
        *(key for key in beside if key in objects),
        *(stored.key for stored in (*companions, *notes.get(name_of(entry.path), []))),
        key_of(entry, prefix=prefix),
    ]
