"""flock(2) on a directory: one holder per directory, across containers, gone with its process."""

from __future__ import annotations

import fcntl
import os


def lock_directory(path: str) -> int:
    """Lock the directory `path` for this process; the lock stands until the returned descriptor is closed everywhere.

    A forked child must close its copy, or the lock outlives its parent. Raises BlockingIOError while somebody else
    has the lock, else OSError. Source: flock(2).
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        raise
    return fd
