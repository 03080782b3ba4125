"""Child processes: reaped without waiting, and not left behind."""

from __future__ import annotations

import ctypes
import os
import signal

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
