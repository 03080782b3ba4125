"""Small files written so that a power cut leaves the old or the new one, never half of it."""

from __future__ import annotations

import os


def sync_directory(path: str) -> None:
    """Make the names in the directory `path` durable. Source: fsync(2), NOTES: the directory needs its own fsync."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: str, content: bytes, *, mode: int = 0o644) -> None:
    """Make `path` hold `content`: temporary file beside it, fsync, rename over, fsync of the directory.

    Raises OSError with the path; `path` is then as it was before.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass  # the error that counts is the first one
        raise
    sync_directory(os.path.dirname(path) or ".")


def write_at(fd: int, content: bytes | memoryview, at: int) -> None:
    """Write all of `content` at the offset `at`. Raises OSError, with a part of it written."""
    view = memoryview(content)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written
