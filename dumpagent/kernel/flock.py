"""flock(2) on a directory or file: one holder, across containers, gone with its process."""

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


class FileLock:
    """A lock on the file `path` that this process takes and lets go, and that others ask for with `is_locked`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd: int | None = None

    def set(self, locked: bool) -> None:
        """Take the lock, or let it go. Raises OSError where there is none to be had."""
        if locked and self._fd is None:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                raise
            self._fd = fd
        elif not locked and self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # a forked child may have the descriptor too
            os.close(self._fd)
            self._fd = None


def is_locked(path: str) -> bool:
    """Say whether a process holds the lock on the file `path`. Raises OSError where that cannot be known."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
