"""Moves one file into the volume so that a kill at any point loses nothing and overwrites nothing."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dumpagent.kernel.lease import WriterState, lease_stands, release_lease, writer_state
from dumpagent.mount.labels import copy_label

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK_BYTES = 8 << 20
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


def made(name: str, directory: int, like: os.stat_result | None = None) -> int:
    """Open the directory `name`, made with mode and owner of `like` if it was missing; never through a link.

    The caller closes it. Raises OSError.
    """
    try:
        os.mkdir(name, 0o755, dir_fd=directory)
        created = True
    except FileExistsError:
        created = False
    fd = os.open(name, DIRECTORY, dir_fd=directory)
    if created and like is not None:
        _owned(fd, like)
    return fd


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
    with opened(os.open(temporary, flags, 0o600, dir_fd=drawer)) as out:
        at = 0
        while copied := os.sendfile(out, original.fd, at, _CHUNK_BYTES):
            at += copied
        if at != original.seen.st_size:
            raise WrittenAgain
        _owned(out, original.seen)
        copy_label(
            original.fd, out
        )  # its categories are the application's: without them its neighbours may read it
        os.utime(out, ns=(original.seen.st_atime_ns, original.seen.st_mtime_ns))
        os.fsync(out)


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
