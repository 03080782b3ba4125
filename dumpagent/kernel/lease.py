"""Read leases: the kernel's own answer to "does any process have this file open for writing?"."""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import os
import signal


class WriterState(enum.Enum):
    """Whether some process has a file open for writing; UNKNOWN is not NO_WRITER."""

    NO_WRITER = "no-writer"
    WRITER = "writer"
    UNKNOWN = "unknown"


# There EAGAIN only says that the server gave no delegation or oplock. Source: statfs(2), f_type.
_REMOTE = {0x6969: "nfs", 0x517B: "smb", 0xFE534D42: "smb2", 0xFF534D42: "cifs"}
_libc = ctypes.CDLL(None, use_errno=True)


def writer_state(fd: int) -> WriterState:
    """Say whether any process has the file behind `fd` open for writing, in any container or bind mount.

    `fd` must be open for reading only. A shared writable mapping counts as open. Needs CAP_LEASE or ownership of
    the file; without, and where the file system has no leases, the answer is UNKNOWN. Never raises OSError.
    Source: F_SETLEASE in fcntl(2).
    """
    state = take_read_lease(fd)
    if state is WriterState.NO_WRITER:
        release_lease(fd)
    return state


def take_read_lease(fd: int) -> WriterState:
    """Say what `writer_state` says; after NO_WRITER the lease is held: who opens the file for writing waits for it.

    A waiting opener goes on at `release_lease`, when `fd` is closed, or after /proc/sys/fs/lease-break-time (45 s).
    """
    try:
        # The holder of a lease is signalled when somebody wants to write. The default, SIGIO, would end us.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN and _file_system(fd) not in _REMOTE:
            return WriterState.WRITER
        return WriterState.UNKNOWN
    return WriterState.NO_WRITER


def lease_stands(fd: int) -> bool:
    """Say whether the read lease on `fd` is held and nobody waits to write. Source: F_GETLEASE in fcntl(2)."""
    return fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_RDLCK


def release_lease(fd: int) -> None:
    """Give the lease on `fd` back; nothing happens if there is none."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # The kernel takes a lease away from who keeps a writer waiting too long, and then knows of none.
        if error.errno not in (errno.EAGAIN, errno.EINVAL):
            raise


# Others that machines share; there EAGAIN is the truth about this machine, and only about it.
_SHARED = _REMOTE | {
    0x00C36400: "ceph",
    0x0BD00BD0: "lustre",
    0x01021997: "9p",
    0x5346414F: "afs",
    0x47504653: "gpfs",
}


def network_file_system(fd: int) -> str | None:
    """Say which kind of file system that other machines can write to `fd` is on, None for any other."""
    return _SHARED.get(_file_system(fd))


def _file_system(fd: int) -> int:
    """Give the magic number of the file system that `fd` is on, 0 when it does not tell. Source: statfs(2)."""
    answer = ctypes.create_string_buffer(
        512
    )  # struct statfs is 120 bytes; its first member, a word, is f_type
    if _libc.fstatfs(ctypes.c_int(fd), answer) != 0:
        return 0
    word = os.sysconf("SC_LONG_BIT") // 8
    return int.from_bytes(answer.raw[:word], "little" if _LITTLE else "big")


_LITTLE = (1).to_bytes(2, "little") == bytes(ctypes.c_uint16(1))
