"""Which stored dumps have no exact report: one listing of the bucket."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dumpagent.dumps.keys import below
from dumpagent.dumps.names import is_dump_name
from dumpagent.fetch.stored import StoredDump, is_dump_path
from dumpagent.index.entry import index_prefix
from dumpagent.index.reader import entries_among
from dumpagent.pending.attempts import Attempt, attempts_in, folder_of_notes, name_of, notes_by_dump
from dumpagent.store.protocol import Store, StoredObject

JSON_ENDING, HTML_ENDING = ".analysis.json", ".analysis.html"
SUMMARY_ENDING = ".report.json"


@dataclass(frozen=True, slots=True)
class WaitingDump:
    """A stored dump without an exact report. `summary` is the agent's own report beside it; `notes` are the keys of
    what earlier `attempts` left.
    """

    dump: StoredDump
    attempts: list[Attempt]
    notes: tuple[str, ...]
    summary: StoredObject | None


def waiting_dumps(store: Store, *, prefix: str, since: float | None) -> list[WaitingDump]:
    """Give the dumps made at `since` (seconds since the epoch) or later that have no exact report, newest first.

    An object without an index entry counts where its name is that of a heap dump. One request for a thousand objects.
    Raises Refused, Unreachable.
    """
    root = below(prefix)
    listed = _Listed(root, prefix)
    for stored in store.objects(root):
        listed.sort(stored)
    found = [
        WaitingDump(
            dump=dump,
            attempts=attempts_in(notes := listed.notes_of(dump.path), prefix=prefix),
            notes=tuple(each.key for each in notes),
            summary=listed.summaries.get(dump.path),
        )
        for dump in listed.dumps(store)
        if dump.path not in listed.analyzed and (since is None or dump.when >= since)
    ]
    return sorted(found, key=lambda each: (-each.dump.when, each.dump.key))


class _Listed:
    """What a listing of the bucket has, sorted."""

    def __init__(self, root: str, prefix: str) -> None:
        self._root, self._prefix = root, prefix
        self._entries: list[StoredObject] = []
        self._notes: list[StoredObject] = []
        self._objects: list[StoredObject] = []
        self._by_dump: dict[str, list[StoredObject]] | None = None
        self.analyzed: set[str] = set()
        self.summaries: dict[str, StoredObject] = {}

    def sort(self, stored: StoredObject) -> None:
        path = stored.key.removeprefix(self._root)
        if stored.key.startswith(index_prefix(self._prefix)):
            self._entries.append(stored)
        elif stored.key.startswith(folder_of_notes(self._prefix)):
            self._notes.append(stored)
        elif path.endswith(JSON_ENDING):
            self.analyzed.add(path.removesuffix(JSON_ENDING))
        elif path.endswith(SUMMARY_ENDING):
            self.summaries[path.removesuffix(SUMMARY_ENDING)] = stored
        elif is_dump_path(path) and stored.size_bytes:
            self._objects.append(stored)

    def dumps(self, store: Store) -> Iterator[StoredDump]:
        by_path = {entry.path: entry for entry in entries_among(store, self._entries, prefix=self._prefix)}
        for stored in self._objects:
            path = stored.key.removeprefix(self._root)
            entry = by_path.get(path)
            if entry is not None and entry.stored_bytes == stored.size_bytes:
                yield StoredDump(stored, path, entry=entry)
            elif is_dump_name(path.rpartition("/")[2]):
                yield StoredDump(stored, path)

    def notes_of(self, path: str) -> list[StoredObject]:
        if self._by_dump is None:
            self._by_dump = notes_by_dump(self._notes, prefix=self._prefix)
        return self._by_dump.get(name_of(path), [])
