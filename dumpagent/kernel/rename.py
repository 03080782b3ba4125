"""Renaming a file to a name that must be free: renameat2(2) with RENAME_NOREPLACE."""

from __future__ import annotations

import ctypes
import errno
import os

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def rename_noreplace(old: str, new: str) -> None:
    """Give the file `old` the name `new` in one step; a file that has that name already is left alone.

    Where the kernel or the file system cannot do that, a hard link is made and the old name removed: between the two
    the file has both names, and a call after a crash there finishes it. Never falls back on a rename that replaces.
    Raises FileExistsError when `new` is taken; OSError with both names otherwise, EPERM also where there are no
    hard links either.
    Source: renameat2 in rename(2): EINVAL from a file system without the flag, ENOSYS before Linux 3.15.
    """
    renameat2 = getattr(_libc, "renameat2", None)  # glibc 2.28, musl 1.2.5
    code = errno.ENOSYS
    if renameat2 is not None:
        names = ctypes.c_char_p(os.fsencode(old)), ctypes.c_char_p(os.fsencode(new))
        done = renameat2(
            ctypes.c_int(_AT_FDCWD),
            names[0],
            ctypes.c_int(_AT_FDCWD),
            names[1],
            ctypes.c_uint(_RENAME_NOREPLACE),
        )
        if done == 0:
            return
        code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), old, None, new)
    link_and_unlink(old, new)


def link_and_unlink(old: str, new: str) -> None:
    """Give the file `old` the name `new` by way of a second name; what `rename_noreplace` says holds here too."""
    try:
        os.link(old, new, follow_symlinks=False)
    except FileExistsError:
        before, there = os.lstat(old), os.lstat(new)
        if (before.st_dev, before.st_ino) != (there.st_dev, there.st_ino):
            raise
    os.unlink(old)
