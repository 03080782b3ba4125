"""Moves one file into the volume so that a kill at any point loses nothing and overwrites nothing."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from dumpagent.kernel.lease import WriterState, lease_stands, release_lease, writer_state
from dumpagent.mount.labels import copy_label

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_BYTES = 8 << 20
_SPARE_BYTES = 64 << 10  # for the directory and the receipts
_OTHERS_WRITE = 0o022
_OWN_PLACE = ".rescued-"
_MOST_PLACES = 100
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class Original:
    """A regular file in the node's own directory: open on `fd`, called `name` in `directory`, as it was when `seen`."""

    directory: int
    name: str
    fd: int
    seen: os.stat_result

    @property
    def stamp(self) -> str:
        """Give its identity: another value is another file, or the same after a write."""
        return f"{self.seen.st_ino}-{self.seen.st_size}-{self.seen.st_mtime_ns}"

    def unchanged(self) -> bool:
        """Say whether nobody has written to it since it was seen."""
        now = os.fstat(self.fd)
        return (now.st_size, now.st_mtime_ns) == (self.seen.st_size, self.seen.st_mtime_ns)


class WrittenAgain(Exception):
    """Somebody writes the original again: it stays where it is."""


@contextmanager
def opened(fd: int) -> Iterator[int]:
    """Close `fd` at the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def made(name: str, directory: int) -> int:
    """Open the directory `name` of ours, made if it was missing; never through a link. The caller closes it.

    Raises OSError.
    """
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=directory)
    return os.open(name, DIRECTORY, dir_fd=directory)


def made_like(name: str, directory: int, like: os.stat_result) -> tuple[int, str]:
    """Open a directory for what lies in one like `like`, and give its name: `name` where that is free or is such a one.

    Anybody may have made the name in the volume first: a directory of another owner or mode would give him the files. They
    get a place of their own then, the one of an earlier pass if there is one. The caller closes the descriptor.
    Raises OSError.
    """
    own = [name]
    if not _is_free(name, directory):
        own += sorted(each for each in os.listdir(directory) if each.startswith(f"{name}{_OWN_PLACE}"))[
            :_MOST_PLACES
        ]
    for each in own:
        try:
            os.mkdir(each, 0o700, dir_fd=directory)
        except FileExistsError:
            with suppress(OSError):  # a file, a link, or gone again
                fd = os.open(each, DIRECTORY, dir_fd=directory)
                if _is_like(os.fstat(fd), like):
                    return fd, each
                os.close(fd)
            continue
        return _opened_like(each, directory, like)
    own_place = f"{name}{_OWN_PLACE}{secrets.token_hex(8)}"
    os.mkdir(own_place, 0o700, dir_fd=directory)
    return _opened_like(own_place, directory, like)


def _is_free(name: str, directory: int) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return False


def _opened_like(name: str, directory: int, like: os.stat_result) -> tuple[int, str]:
    fd = os.open(name, DIRECTORY, dir_fd=directory)
    _owned(fd, like)
    return fd, name


def _is_like(found: os.stat_result, like: os.stat_result) -> bool:
    """Say whether a directory has this owner and mode; or is ours, where the server gives no directory away."""
    if found.st_uid == like.st_uid:
        return stat.S_IMODE(found.st_mode) == like.st_mode & 0o1777
    return found.st_uid == os.geteuid() and not found.st_mode & _OTHERS_WRITE


def holds_same(directory: int, name: str, original: Original) -> bool:
    """Say whether the file `name` holds the original's bytes and nobody writes it: then it is safe already.

    Raises FileNotFoundError where there is none, OSError.
    """
    try:
        there = os.open(name, FILE, dir_fd=directory)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            return False  # a link, or a pipe
        raise
    with opened(there):
        found = os.fstat(there)
        if not stat.S_ISREG(found.st_mode) or found.st_size != original.seen.st_size:
            return False
        if found.st_uid not in (original.seen.st_uid, os.geteuid()):
            return False  # its owner can change it as soon as the original is gone
        at = 0
        while at < found.st_size:
            mine = os.pread(original.fd, _CHUNK_BYTES, at)
            if not mine or mine != os.pread(there, len(mine), at):
                return False
            at += len(mine)
        return writer_state(there) is not WriterState.WRITER


def move(
    original: Original,
    into: int,
    name: str,
    *,
    drawer: int,
    temporary: str,
    lease: Callable[[int], WriterState],
) -> None:
    """Copy the original to `temporary` in `drawer`, sync, link it as `name` in `into`, then unlink the original.

    Raises FileExistsError when somebody else took `name`, WrittenAgain, OSError: the original is then still there.
    """
    try:
        _copy(original, drawer, temporary)
        with _nobody_writes(original, lease):
            _link(drawer, temporary, into, name)
            os.fsync(into)
            if not lease_stands(original.fd) and lease(original.fd) is not WriterState.UNKNOWN:
                raise WrittenAgain  # who waited for our lease will write to it
            os.unlink(original.name, dir_fd=original.directory)
    finally:
        unlink_if_there(temporary, drawer)


def drop(original: Original, lease: Callable[[int], WriterState]) -> None:
    """Unlink an original whose bytes the volume holds already. Raises WrittenAgain, OSError."""
    with _nobody_writes(original, lease):
        os.unlink(original.name, dir_fd=original.directory)


def unlink_if_there(name: str, directory: int) -> None:
    """Unlink `name`; a missing one is well. Raises OSError."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


@contextmanager
def _nobody_writes(original: Original, lease: Callable[[int], WriterState]) -> Iterator[None]:
    """While entered, who opens the original for writing waits. Raises WrittenAgain if it was or is written."""
    if lease(original.fd) is WriterState.WRITER:
        raise WrittenAgain
    try:
        if not original.unchanged():
            raise WrittenAgain
        yield
    finally:
        release_lease(original.fd)


def _copy(original: Original, drawer: int, temporary: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    unlink_if_there(temporary, drawer)  # of a pass that was killed
    _demand_room(original, drawer)
    with opened(os.open(temporary, flags, 0o600, dir_fd=drawer)) as out:
        size_bytes = original.seen.st_size
        os.truncate(out, size_bytes)
        for begin, end in _extents(original.fd, size_bytes):
            at = os.lseek(out, begin, os.SEEK_SET)
            while at < end and (copied := os.sendfile(out, original.fd, at, min(_CHUNK_BYTES, end - at))):
                at += copied
            if at != end:
                raise WrittenAgain
        if os.fstat(original.fd).st_size != size_bytes:
            raise WrittenAgain
        _owned(out, original.seen)
        copy_label(
            original.fd, out
        )  # its categories are the application's: without them its neighbours may read it
        os.utime(out, ns=(original.seen.st_atime_ns, original.seen.st_mtime_ns))
        os.fsync(out)


def _demand_room(original: Original, drawer: int) -> None:
    """Raise OSError (ENOSPC) where the original's blocks do not fit: a copy that fills the volume cuts others' dumps."""
    volume = os.fstatvfs(drawer)
    needed_bytes = min(original.seen.st_blocks * 512, original.seen.st_size)
    free_bytes = volume.f_bavail * volume.f_frsize
    if needed_bytes + _SPARE_BYTES > free_bytes:
        raise OSError(errno.ENOSPC, f"no room in the volume: {needed_bytes} bytes needed, {free_bytes} free")


def _extents(fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Give begin and end of what was ever written; a hole costs its owner nothing, so it must cost the volume nothing.

    Source: lseek(2), SEEK_DATA gives ENXIO behind the last data.
    """
    at = 0
    while at < size_bytes:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            yield at, size_bytes  # a file system that does not tell
            return
        at = min(os.lseek(fd, begin, os.SEEK_HOLE), size_bytes)
        yield begin, at


def _owned(fd: int, like: os.stat_result) -> None:
    try:
        os.fchown(fd, like.st_uid, like.st_gid)
    except OSError:
        pass  # a server may refuse to give files away; the agent that uploads reads them all the same
    os.fchmod(fd, like.st_mode & 0o1777)


def _link(drawer: int, temporary: str, into: int, name: str) -> None:
    """Give the temporary its name, which must be free. Raises FileExistsError, OSError."""
    try:
        os.link(temporary, name, src_dir_fd=drawer, dst_dir_fd=into, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        # A file system without hard links: reserve the name, which fails if it is taken, and rename over our own.
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=into))
        os.rename(temporary, name, src_dir_fd=drawer, dst_dir_fd=into)
