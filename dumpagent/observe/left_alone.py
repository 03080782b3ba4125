"""Tells once what a scan left alone: memory images of other programs, directories that it does not enter."""

from __future__ import annotations

from dumpagent.dumps.model import DumpFile
from dumpagent.observe.events import Tell
from dumpagent.observe.events.volume import DirectorySkipped, FileLeftAlone, LeftAloneCounted

_MOST = 1000  # files that are remembered as told
CORE_HINT = (
    "it may be any program's memory: name it in INCLUDE if it is a JVM's, or remove it; "
    "OpenJ9's system dumps are taken as core*.dmp"
)


class LeftAlone:
    """Remembers what was told, and counts what lies there. Belongs to one thread."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._told: set[tuple[int, int]] = set()
        self._skipped: set[str] = set()
        self._cores = 0

    def begin(self) -> None:
        """Begin to count for a new scan."""
        self._cores = 0

    def note(self, file: DumpFile) -> None:
        """Take note of a core file."""
        self._cores += 1
        key = (file.device, file.identity.inode)
        if key not in self._told and len(self._told) < _MOST:
            self._told.add(key)
            self._tell(
                FileLeftAlone(
                    path=file.path, size_bytes=file.size_bytes, reason="a core file", hint=CORE_HINT
                )
            )

    def finish(self, not_entered: dict[str, str], unknown: int) -> None:
        """Take note of the directories that the scan did not enter, and of files that cannot be read at all."""
        for relpath, reason in not_entered.items():
            if relpath not in self._skipped and len(self._skipped) < _MOST:
                self._skipped.add(relpath)
                self._tell(DirectorySkipped(path=relpath, reason=reason))
        self._tell(LeftAloneCounted(cores=self._cores, unreadable=unknown, directories=len(not_entered)))
