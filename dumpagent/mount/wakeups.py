"""Waits for a change of the mount table, a signal, a child's word or a time, whatever comes first."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from types import FrameType

from dumpagent.kernel.mountinfo import CHANGED


class Wakeups:
    """One wait for everything that the daemon reacts to. `close` undoes what the constructor's `open` did."""

    def __init__(self, mountinfo_fd: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.mountinfo_fd = mountinfo_fd
        self.stopping = False
        self._monotonic = monotonic
        self._deaf_until = 0.0
        self._changed = False
        self._signalled: tuple[int, int] = (-1, -1)

    def open(self) -> None:
        """Take SIGTERM, SIGINT and SIGCHLD over; as PID 1 the kernel would drop the first two otherwise."""
        self._signalled = os.pipe()
        for fd in self._signalled:
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._signalled[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    @property
    def fds(self) -> tuple[int, ...]:
        """Give the descriptors that a forked child must not keep."""
        return (*self._signalled, self.mountinfo_fd)

    def ignore_table_for(self, seconds: float) -> None:
        """Leave the mount table's wake-ups for later: none is lost, many become one."""
        self._deaf_until = self._monotonic() + seconds

    def wait(self, until: float, fds: Iterable[int | None]) -> None:
        """Wait until the monotonic time `until`, or until something comes."""
        now = self._monotonic()
        poll = select.poll()
        poll.register(self._signalled[0], select.POLLIN)
        for fd in fds:
            if fd is not None:
                poll.register(fd, select.POLLIN)
        if now >= self._deaf_until:
            poll.register(self.mountinfo_fd, CHANGED)
        else:
            until = min(until, self._deaf_until)
        if self.stopping:
            return
        for fd, _ in poll.poll(max(0.0, until - now) * 1000):
            if fd == self.mountinfo_fd:
                self._changed = True
            elif fd == self._signalled[0]:
                os.read(fd, 4096)

    def table_changed(self) -> bool:
        """Say whether the mount table has changed since this was last asked."""
        changed, self._changed = self._changed, False
        return changed

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stopping = True
