"""Blocks until the volume is mounted and ready, for init containers; wakes at once and cannot hang itself."""

from __future__ import annotations

import enum
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass

from dumpagent.kernel.children import reap
from dumpagent.kernel.forked import ForkedCall, Say
from dumpagent.kernel.mountinfo import open_mountinfo, read_mountinfo
from dumpagent.kernel.owned import STATE
from dumpagent.mount.backend import READY
from dumpagent.mount.table import Wakeups, mounted_at

_SAY_EVERY_S = 30.0
_LOOK_EVERY_S = 0.05  # at .ready, once the volume is mounted: no wake-up comes for files on every file system
_HUNG_AFTER_S = 10.0
_NOT_THE_MANAGERS = "it is not the manager's: another user made it"


class Waited(enum.Enum):
    """How the wait ended."""

    READY = "ready"
    TIMED_OUT = "timed-out"
    STOPPED = "stopped"


@dataclass
class VolumeWait:
    """Waits for `root` to be mounted in this namespace and to hold `.ready`; `say` prints one line for a person."""

    root: str
    say: Callable[[str], None]
    monotonic: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.mountinfo_fd = open_mountinfo()
        self.wakeups = Wakeups(self.mountinfo_fd, monotonic=self.monotonic)
        self.wakeups.open()
        self.reason = ""
        self._mounted: tuple[bytes, ...] = ()
        self._look: ForkedCall | None = None
        self._seen = False
        self._error = ""

    def wait(self, timeout_s: float) -> Waited:
        """Wait, for `timeout_s` at most (0: for ever); say at once and every 30 s what is missing."""
        began = said = self.monotonic()
        ended = Waited.STOPPED
        while not self.wakeups.stopping:
            now = self.monotonic()
            if self._is_ready(now):
                ended = Waited.READY
                break
            if timeout_s and now - began >= timeout_s:
                ended = Waited.TIMED_OUT
                break
            if said == began or now - said >= _SAY_EVERY_S:
                self.say(f"waiting{f' for {now - began:.0f} s' if said != began else ''}: {self.reason}")
                said = now
            until = min(said + _SAY_EVERY_S, began + timeout_s if timeout_s else now + _SAY_EVERY_S)
            if self._look:
                until = min(until, max(now + 1.0, self._look.started + _HUNG_AFTER_S))
            self.wakeups.wait(until, [self._look.fd if self._look else None])
        if self._look:
            self._look.abandon()
        return ended

    def _is_ready(self, now: float) -> bool:
        reap()
        before, self._mounted = self._mounted, mounted_at(read_mountinfo(self.mountinfo_fd), self.root)
        if self._look and self._mounted != before:
            self._look.abandon()  # what it asks may be a volume that is gone
            self._look = None
        if not self._mounted:
            self.reason = (
                f"nothing is mounted at {self.root}; is `dumpagent mount` ready on this node, and does this pod mount "
                f"{os.path.dirname(self.root)} with mountPropagation: HostToContainer?"
            )
            return False
        if self._look is None:
            self._seen, self._error = False, ""
            self._look = ForkedCall.start(self._look_for_ready, now=now, close=self.wakeups.fds)
        for line in self._look.read():
            self._seen = bool(line.get("seen"))
            self._error = str(line.get("error", ""))
        if self._look.ended and not self._seen:
            self._look = None
        if self._error:
            self.reason = f"{self.root}/{READY}: {self._error}"
        elif self._look and now - self._look.started >= _HUNG_AFTER_S:
            self.reason = f"{self.root} does not answer: the volume hangs"
        else:
            self.reason = f"{self.root} is mounted; looking for {READY}"
        return self._seen

    def _look_for_ready(self, say: Say) -> None:
        error = ""
        while True:
            try:
                told = "" if is_managers(self.root) else _NOT_THE_MANAGERS
            except OSError as failed:
                told = os.strerror(failed.errno or 0)
            if not told:
                say({"seen": True})
                return
            if error != told:
                error = told
                say({"error": told})
            time.sleep(_LOOK_EVERY_S)


def is_managers(root: str) -> bool:
    """Say whether `.ready` is a file of the manager's: root's, or of whom the server maps root to. Raises OSError."""
    ready = os.stat(f"{root}/{READY}", follow_symlinks=False)
    if not stat.S_ISREG(ready.st_mode):
        return False
    return ready.st_uid == 0 or ready.st_uid == os.stat(f"{root}/{STATE}", follow_symlinks=False).st_uid
