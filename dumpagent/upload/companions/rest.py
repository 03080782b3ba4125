"""Says whether a file beside a dump is at rest: nobody writes it, or nobody has for a while."""

from __future__ import annotations

import time
from collections.abc import Callable

from dumpagent.dumps.companion import is_crash_file
from dumpagent.dumps.files import open_dump
from dumpagent.dumps.model import DumpFile, Identity, State, Verdict
from dumpagent.kernel.lease import WriterState, release_lease, take_read_lease

_CLOSED_S = 2.0  # an error file is written in one go
_LOG_S = 10.0  # some loggers open and close the file for each line
_LEAST_RECHECK_S = 0.5
_CLOCK_LIE_S = 3600.0  # by how much we let the clock of a file server lie


class Rest:
    """Remembers when each file was last seen to change. Belongs to one thread."""

    def __init__(
        self,
        *,
        quiet_s: float,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        take_lease: Callable[[int], WriterState] = take_read_lease,
    ) -> None:
        self._quiet_s, self._now = quiet_s, now
        self._monotonic, self._take_lease = monotonic, take_lease
        self._seen: dict[tuple[int, int], tuple[Identity, float]] = {}

    def judge(self, file: DumpFile) -> Verdict:
        """Give whether the file may be uploaded now. Raises FileNotFoundError, OSError.

        Once nobody has it open for writing it waits for a few seconds; a file that somebody has open, or of which
        nobody can say, for the quiet time, since a log can be open for as long as its JVM lives.
        """
        with open_dump(file) as opened:
            status = opened.status()
            writer = self._take_lease(opened.fd)
            if writer is WriterState.NO_WRITER:
                release_lease(opened.fd)
        identity = Identity.of(status)
        key, now = (file.device, status.st_ino), self._monotonic()
        known, since = self._seen.get(key, (identity, now))
        if known != identity:
            since = now
        self._seen[key] = identity, since
        needed_s = self._quiet_s
        if writer is WriterState.NO_WRITER:
            needed_s = min(needed_s, _CLOSED_S if is_crash_file(file.relpath.rpartition("/")[2]) else _LOG_S)
        age_s = self._now() - status.st_mtime - (0.0 if writer is WriterState.NO_WRITER else _CLOCK_LIE_S)
        left_s = needed_s - max(now - since, age_s)
        if left_s > 0 or identity != file.identity:
            return Verdict(
                State.WRITING, "it has just changed", due=False, recheck_s=max(left_s, _LEAST_RECHECK_S)
            )
        return Verdict(State.UNKNOWN, "it is at rest", due=True)

    def forget(self, file: DumpFile) -> None:
        """Drop what was learnt of a file that is gone or stored."""
        self._seen.pop((file.device, file.identity.inode), None)
