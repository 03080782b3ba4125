"""Child processes: reaped without waiting, not left behind, made to stand still while we do what cannot wait."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_PR_SET_PDEATHSIG = 1  # Source: prctl(2), <linux/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)


def reap() -> list[int]:
    """Reap every child that has ended, orphans that PID 1 inherits too, and give their pids. Never waits."""
    ended: list[int] = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append(pid)


def die_with_parent() -> None:
    """Have the kernel send us SIGKILL when our parent thread ends. Source: PR_SET_PDEATHSIG in prctl(2)."""
    _libc.prctl(ctypes.c_int(_PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL))


class Pausable(Protocol):
    """What can be made to stand still."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Precedence:
    """Whoever does what cannot wait takes precedence over a child that shares our CPU. Any thread may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working = 0
        self._process: Pausable | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the child stand still for as long as this is open."""
        with self._lock:
            self._working += 1
            if self._working == 1 and self._process:
                self._process.pause()
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1
                if self._working == 0 and self._process:
                    self._process.resume()

    @contextmanager
    def given_by(self, process: Pausable) -> Iterator[None]:
        """Have `process` give precedence to the others."""
        with self._lock:
            self._process = process
            if self._working:
                process.pause()
        try:
            yield
        finally:
            with self._lock:
                self._process = None
