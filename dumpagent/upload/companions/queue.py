"""The companions on the volume and how far each has come: crash files before logs, small ones before large ones."""

from __future__ import annotations

from dumpagent.dumps.companion import is_crash_file
from dumpagent.dumps.model import DumpFile
from dumpagent.upload.backlog import Backlog, Entry, Stage


class CompanionQueue(Backlog):
    """A backlog of its own, so that the counts of dumps are of dumps alone."""

    def rank(self, entry: Entry) -> tuple[int, ...]:
        """Give the place of an entry that is due: the least comes first."""
        log = not is_crash_file(entry.dump.relpath.rpartition("/")[2])
        return (entry.attempts, log, entry.dump.size_bytes, *super().rank(entry))

    def is_pending(self, file: DumpFile) -> bool:
        """Say whether the file waits for its upload."""
        return self.stage(file) not in (None, Stage.STORED)

    def keys(self) -> set[tuple[int, int]]:
        """Give device and inode of each file that is known."""
        with self._lock:
            return set(self._entries)

    def put_back(self, entry: Entry) -> None:
        """Put a file back whose upload gave way to a dump's: it goes on as soon as no dump waits."""
        with self._lock:
            if entry.stage is Stage.SENDING:
                entry.stage = Stage.READY
