"""Tells of files that a process holds open for writing and never writes: nobody's dump can get their name."""

from __future__ import annotations

from dumpagent.dumps.model import DumpFile, Verdict
from dumpagent.observe.events import Tell
from dumpagent.observe.events.volume import FileHeldOpen, FileReleased
from dumpagent.observe.incident import Incident

# A JVM writes its dump without a break; one that its cgroup or a debugger stops may take minutes.
LEAST_S = 600.0
_EVERY_S = 6 * 3600.0
_HINT = (
    "a JVM whose dump should get this name writes none: find the process of this user (uid) on the node, and give each "
    "pod a directory of its own with `dumpagent wait`"
)


class HeldOpen:
    """Remembers which files were told. Belongs to one thread."""

    def __init__(self, tell: Tell) -> None:
        self._incident = Incident(tell, FileHeldOpen, FileReleased, every_s=_EVERY_S)

    def note(self, dump: DumpFile, verdict: Verdict) -> None:
        """Take note of how a file was judged."""
        subject = (dump.device, dump.identity.inode)
        if verdict.held_open_s < LEAST_S:
            self._incident.ended_for(subject, FileReleased(path=dump.path, uid=dump.uid))
            return
        self._incident.failed(
            subject,
            FileHeldOpen(
                error="a process holds it open for writing and writes nothing",
                path=dump.path,
                uid=dump.uid,
                size_bytes=dump.size_bytes,
                hint=_HINT,
            ),
        )

    def forget(self, dump: DumpFile) -> None:
        """Drop what is known of a file that is gone."""
        self._incident.forget((dump.device, dump.identity.inode))
