"""Opening what lies below a directory, so that no name on the way can lead out of it.

A path that is resolved twice is two paths: whoever may write to a directory on the way can swap it for a symbolic link
in between. Here the kernel refuses links, `..` and other file systems at every level, not at the last one alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_NUMBER = 437  # openat2, the same on every architecture. Source: openat2(2), <linux/openat2.h>
_NO_XDEV, _NO_SYMLINKS, _BENEATH = 0x01, 0x04, 0x08
_RESOLVE = _BENEATH | _NO_SYMLINKS | _NO_XDEV
# EPERM: a seccomp profile older than the call. EINVAL: a kernel that lacks a flag.
_UNKNOWN_CALL = {errno.ENOSYS, errno.EPERM, errno.EINVAL}
_LONGEST_BYTES = 4000  # Source: limits.h, PATH_MAX is 4096 with the NUL
_TRIES = (
    8  # EAGAIN: something was renamed meanwhile, and the kernel cannot tell whether the path stayed inside
)

_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_beneath(directory: int, relpath: str, flags: int, mode: int = 0) -> int:
    """Open `relpath` below the directory that is open on `directory`; the caller closes the descriptor.

    Paths of any length. Raises OSError with the path: ELOOP for a symbolic link anywhere in it, EXDEV for a way out of
    the directory or to another file system.
    """
    names = [name for name in relpath.split("/") if name not in ("", ".")]
    if ".." in names:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), relpath)
    fd, mine = directory, False
    try:
        while True:
            step = _most_that_fits(names)
            last = len(step) == len(names)
            opened = _open(fd, "/".join(step) or ".", flags if last else DIRECTORY, mode if last else 0)
            if mine:
                os.close(fd)
            fd, mine = opened, True
            if last:
                return fd
            names = names[len(step) :]
    except OSError as error:
        if mine:
            os.close(fd)
        raise OSError(error.errno, error.strerror, relpath) from error


def _most_that_fits(names: list[str]) -> list[str]:
    step: list[str] = []
    length = 0
    for name in names:
        length += len(os.fsencode(name)) + 1
        if step and length > _LONGEST_BYTES:
            break
        step.append(name)
    return step


def _open(directory: int, path: str, flags: int, mode: int) -> int:
    how = _OpenHow(flags, mode, _RESOLVE)
    for _ in range(_TRIES):
        fd = _libc.syscall(
            ctypes.c_long(_NUMBER),
            ctypes.c_int(directory),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return int(fd)
        code = ctypes.get_errno()
        if code != errno.EAGAIN:
            break
    if code in _UNKNOWN_CALL:
        return open_by_level(directory, path, flags, mode)
    raise OSError(code, os.strerror(code), path)


def open_by_level(directory: int, path: str, flags: int, mode: int = 0) -> int:
    """Do what `open_beneath` does where the kernel has no openat2(2): level by level, none through a link."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    device = os.fstat(directory).st_dev
    fd = os.open(".", DIRECTORY, dir_fd=directory)
    try:
        for number, name in enumerate(names):
            last = number == len(names) - 1
            try:
                # With O_PATH a link would be opened itself, and a device or FIFO is never touched.
                inside = os.open(name, flags | os.O_NOFOLLOW if last else DIRECTORY, mode, dir_fd=fd)
            except NotADirectoryError as error:
                if not last and stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from error
                raise
            os.close(fd)
            fd = inside
            if os.fstat(fd).st_dev != device:
                raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), path)
        if not names and flags & ~DIRECTORY:
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    except OSError:
        os.close(fd)
        raise
    return fd


def open_root(path: str) -> int:
    """Open the directory that everything lies below; links in its own path are the administrator's, and followed."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK)


@contextmanager
def opened_directory(root: str, relpath: str) -> Iterator[int]:
    """Open the directory `relpath` below `root` for the time of the `with`. Raises OSError."""
    above = open_root(root)
    try:
        fd = open_beneath(above, relpath, DIRECTORY) if relpath else os.dup(above)
    finally:
        os.close(above)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened_parent(root: str, relpath: str) -> Iterator[tuple[int, str]]:
    """Open the directory that `relpath` lies in, and give it with the last name of the path. Raises OSError."""
    above, _, name = relpath.rpartition("/")
    with opened_directory(root, above) as directory:
        yield directory, name


def open_file(root: str, relpath: str) -> int:
    """Open the regular file `relpath` below `root` for reading; never waits for a FIFO, never opens a device twice.

    The caller closes it. Raises OSError: EINVAL for what is no regular file.
    """
    with opened_parent(root, relpath) as (directory, name):
        return open_in(directory, name)


def open_in(directory: int, name: str) -> int:
    """Open the regular file `name` in the directory that is open on `directory`; else as `open_file`."""
    if not stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)
    fd = os.open(name, FILE, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", name)
        if status.st_dev != os.fstat(directory).st_dev:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    except OSError:
        os.close(fd)
        raise
    return fd
