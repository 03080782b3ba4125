"""Ends a process at one of its system calls, whichever of its threads makes it: before the call, or right after it."""

from __future__ import annotations

import ctypes
import os
import signal
from types import FrameType

# Source: linux/ptrace.h, ptrace(2).
_TRACEME, _SYSCALL, _SETOPTIONS = 0, 24, 0x4200
_TRACESYSGOOD, _TRACECLONE, _EXITKILL = 0x1, 0x8, 0x100000
_WALL = 0x40000000  # linux/wait.h: threads too

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


class _Late(Exception):
    """The process lived for as long as it may."""


def let_parent_trace() -> None:
    """Stop this process until its parent goes on with `kill_at_system_call`."""
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)


def kill_at_system_call(pid: int, number: int, *, within_s: float) -> tuple[int, bool]:
    """Run the stopped child `pid` up to stop `number` (each system call has two), and kill it there with SIGKILL.

    Gives its exit code, or minus the signal that ended it, and whether it came to that stop within `within_s` and
    before this process got SIGUSR1; else it is killed where it is. For the main thread of a process with no other
    children, which has SIGUSR1 blocked.
    """
    os.waitpid(pid, 0)
    _ptrace(_SETOPTIONS, pid, _TRACESYSGOOD | _TRACECLONE | _EXITKILL)
    left, threads, reached = number, {pid}, False
    _go_on(pid)

    def late(_number: int, _frame: FrameType | None) -> None:
        raise _Late

    signal.signal(signal.SIGALRM, late)
    signal.signal(signal.SIGUSR1, late)
    try:
        signal.setitimer(signal.ITIMER_REAL, within_s)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
        while True:
            tid, status = os.waitpid(-1, _WALL)
            if not os.WIFSTOPPED(status):
                if tid == pid:
                    return os.waitstatus_to_exitcode(status), reached
                continue
            stopped_by = os.WSTOPSIG(status)
            deliver = 0
            if stopped_by == signal.SIGTRAP | 0x80:
                left -= 1
                if left <= 0:
                    reached = True
                    break
            elif tid not in threads:
                threads.add(tid)  # a new thread's own first stop
            elif stopped_by != signal.SIGTRAP:
                deliver = stopped_by
            _go_on(tid, deliver)
    except _Late:
        pass
    finally:
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    os.kill(pid, signal.SIGKILL)
    while True:
        tid, status = os.waitpid(-1, _WALL)
        if tid == pid and not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status), reached


def _go_on(tid: int, deliver: int = 0) -> None:
    try:
        _ptrace(_SYSCALL, tid, deliver)
    except ProcessLookupError:
        pass  # killed meanwhile; its end is still to be waited for


def _ptrace(request: int, tid: int, data: int = 0) -> None:
    if _libc.ptrace(request, tid, None, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
