"""The companions on the volume and how far each has come: of each owner crash files before logs, small ones before large ones."""

from __future__ import annotations

from dumpagent.dumps.companion import is_crash_file
from dumpagent.dumps.model import DumpFile
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.entry import Entry, Stage


class CompanionQueue(Backlog):
    """A backlog of its own, so that the counts of dumps are of dumps alone."""

    def rank(self, entry: Entry) -> tuple[int, ...]:
        """Give the place of an entry that is due: the least comes first."""
        log = not is_crash_file(entry.dump.relpath.rpartition("/")[2])
        holes, owner, attempts, *rest = super().rank(entry)
        return (holes, owner, attempts, log, entry.dump.size_bytes, *rest)

    def has_ready(self) -> bool:
        """Say whether a file may be uploaded."""
        with self._lock:
            return any(entry.stage is Stage.READY for entry in self._entries.values())

    def has_room(self, owner: int) -> bool:
        """Say whether one more file of this owner would be kept track of."""
        with self._lock:
            return self._has_room(owner)

    def is_pending(self, file: DumpFile) -> bool:
        """Say whether the file waits for its upload."""
        return self.stage(file) not in (None, Stage.STORED)

    def keys(self) -> set[tuple[int, int]]:
        """Give device and inode of each file that is known."""
        with self._lock:
            return set(self._entries)
