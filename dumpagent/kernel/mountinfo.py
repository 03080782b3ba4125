"""/proc/self/mountinfo: the mounts of this namespace, and a wake-up when they change."""

from __future__ import annotations

import os
import select

# Source: proc(5), /proc/pid/mounts: after a change poll(2) marks the file as having a priority event and an error.
CHANGED = select.POLLPRI | select.POLLERR


def open_mountinfo(path: str = "/proc/self/mountinfo") -> int:
    """Open the mount table for `read_mountinfo` and for polling; the caller closes it."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def read_mountinfo(fd: int) -> bytes:
    """Give the whole mount table. Asks no file system, so it never hangs. Raises OSError."""
    os.lseek(fd, 0, os.SEEK_SET)
    pieces = []
    while piece := os.read(fd, 1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def mount_id(fd: int) -> int:
    """Give the id of the mount that `fd` (O_PATH will do) was opened on. Source: proc_pid_fdinfo(5), mnt_id."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    raise OSError(f"/proc/self/fdinfo/{fd} has no mnt_id")
