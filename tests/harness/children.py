"""Child processes that never outlive the tests, not even when pytest is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Sequence
from typing import Any

_PR_SET_PDEATHSIG = 1  # Source: linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it is gone. Source: prctl(2)."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it went before we could ask
        os._exit(1)


def start(argv: Sequence[str | os.PathLike[str]], **popen: Any) -> subprocess.Popen[Any]:
    """Start a program as `subprocess.Popen` does; it is killed when its starter ends, however that ends.

    Start from the main thread: the kernel watches the thread, not the process.
    """
    parent = os.getpid()
    return subprocess.Popen(argv, preexec_fn=lambda: die_with(parent), **popen)


def end(child: subprocess.Popen[Any], *, grace_s: float = 5.0) -> int:
    """Give the exit code of `child` after ending it: SIGTERM, then SIGKILL when `grace_s` is over. Reaps it."""
    if child.poll() is None:
        if grace_s > 0:
            child.terminate()
            try:
                child.wait(grace_s)
            except subprocess.TimeoutExpired:
                child.kill()
        else:
            child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                pass  # a line for a process that no longer reads
    return child.returncode
