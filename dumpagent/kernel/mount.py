"""mount(2), umount2(2), open_tree(2): with the real errno, without an external program."""

from __future__ import annotations

import ctypes
import os

# Source: mount(2), umount2(2); <linux/mount.h>
MS_RDONLY = 1
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
_OPEN_TREE = 428  # the same on every architecture since Linux 5.2; glibc before 2.36 has no wrapper
_OPEN_TREE_CLONE = 1
_AT_FDCWD = -100

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (
    ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p,
)  # fmt: skip
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(
    source: str | None, target: str, flags: int, *, fstype: str | None = None, options: str = ""
) -> None:
    """Mount, bind or change a mount as `flags` say. A `target` that ends in a link is followed.

    Raises OSError with `target`. Source: mount(2).
    """
    done = _libc.mount(
        os.fsencode(source) if source is not None else None,
        os.fsencode(target),
        os.fsencode(fstype) if fstype is not None else None,
        flags,
        os.fsencode(options) if options else None,
    )
    if done != 0:
        raise _error(target)


def bind(source: str, target_fd: int) -> None:
    """Bind the directory `source` onto the directory that `target_fd` (O_PATH) is open on, whatever its name is now.

    Raises OSError. It succeeds for a source whose file system is dead: that is the caller's to know.
    """
    mount(source, f"/proc/self/fd/{target_fd}", MS_BIND)


def make_private(path: str) -> None:
    """Take the mount at `path` out of its peer group: what is mounted below is not told to anybody else.

    Raises OSError, EINVAL if `path` is no mount point. Source: mount_namespaces(7).
    """
    mount(None, path, MS_PRIVATE)


def detach(target: str) -> None:
    """Take the topmost mount off `target` now; who has files open in it keeps them. Never waits for the file system.

    Raises OSError, EINVAL if nothing is mounted there. Source: MNT_DETACH in umount2(2).
    """
    if _libc.umount2(os.fsencode(target), MNT_DETACH | UMOUNT_NOFOLLOW) != 0:
        raise _error(target)


def _error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)


def open_tree_clone(path: str) -> int:
    """Open a copy of the mount that `path` is on, seen from `path`, without the mounts below it.

    What other mounts hide is visible through it. The caller closes the descriptor, and the copy is gone with it.
    Raises OSError with `path`: EPERM without CAP_SYS_ADMIN, ENOSYS before Linux 5.2. Source: open_tree(2).
    """
    fd = _libc.syscall(
        ctypes.c_long(_OPEN_TREE),
        ctypes.c_int(_AT_FDCWD),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC),
    )
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(fd)
