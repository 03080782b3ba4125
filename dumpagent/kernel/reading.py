"""Opening a file that somebody else controls, for reading only, and reading it at offsets."""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType


class OpenFile:
    """A regular file opened for reading; closed at the end of its `with`."""

    def __init__(self, fd: int, path: str) -> None:
        self.fd = fd
        self.path = path

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Give up to `size_bytes` bytes from `offset`, fewer only at the end of the file. Raises OSError."""
        if offset > _OFFSET_MOST:
            return b""
        content = os.pread(self.fd, size_bytes, offset)
        if len(content) == size_bytes or not content:
            return content
        pieces = [content]  # a network file system may give a part of what is there
        while content and (missing := size_bytes - sum(map(len, pieces))) > 0:
            content = os.pread(self.fd, missing, offset + size_bytes - missing)
            pieces.append(content)
        return b"".join(pieces)

    def hop(self) -> None:
        """Tell the kernel that small reads far apart follow: reading ahead of each would bring in the whole file.

        Source: posix_fadvise(2), POSIX_FADV_RANDOM.
        """
        try:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_RANDOM)
        except OSError:
            pass  # a file system that knows no advice

    def forget_pages(self) -> None:
        """Let the kernel drop what was read of the file from its cache. Source: posix_fadvise(2), DONTNEED."""
        try:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        except OSError:
            pass  # a file system that knows no advice

    def status(self) -> os.stat_result:
        """Give fstat(2) of it."""
        return os.fstat(self.fd)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)


_OFFSET_MOST = (1 << 63) - 1 - (1 << 32)  # off_t is signed; behind it there can be nothing


def open_regular(path: str) -> OpenFile:
    """Open the regular file `path` for reading; never waits for a FIFO's writer, never follows a symbolic link.

    Raises OSError: ELOOP for a symbolic link, EINVAL for what is no regular file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
    except OSError:
        os.close(fd)
        raise
    return OpenFile(fd, path)
