"""Renaming a file to a name that must be free: renameat2(2) with RENAME_NOREPLACE."""

from __future__ import annotations

import ctypes
import errno
import os

_RENAME_NOREPLACE = 1
AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


def rename_noreplace(old: str, new: str, *, old_dir: int = AT_FDCWD, new_dir: int = AT_FDCWD) -> None:
    """Give the file `old` the name `new` in one step; a file that has that name already is left alone.

    Both are relative to the directories that are open on `old_dir` and `new_dir`.

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
            ctypes.c_int(old_dir),
            names[0],
            ctypes.c_int(new_dir),
            names[1],
            ctypes.c_uint(_RENAME_NOREPLACE),
        )
        if done == 0:
            return
        code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(code, os.strerror(code), old, None, new)
    link_and_unlink(old, new, old_dir=old_dir, new_dir=new_dir)


def rename_in(directory: int, old: str, new: str) -> None:
    """Do what `rename_noreplace` does within the directory that is open on `directory`."""
    rename_noreplace(old, new, old_dir=directory, new_dir=directory)


def link_and_unlink(old: str, new: str, *, old_dir: int = AT_FDCWD, new_dir: int = AT_FDCWD) -> None:
    """Give the file `old` the name `new` by way of a second name; what `rename_noreplace` says holds here too."""
    old_fd = None if old_dir == AT_FDCWD else old_dir
    new_fd = None if new_dir == AT_FDCWD else new_dir
    try:
        os.link(old, new, src_dir_fd=old_fd, dst_dir_fd=new_fd, follow_symlinks=False)
    except FileExistsError:
        before = os.stat(old, dir_fd=old_fd, follow_symlinks=False)
        there = os.stat(new, dir_fd=new_fd, follow_symlinks=False)
        if (before.st_dev, before.st_ino) != (there.st_dev, there.st_ino):
            raise
    os.unlink(old, dir_fd=old_fd)
