"""The unfinished file beside a fetched dump: nobody but this user made it, reads it or writes it, and one process has it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dumpagent.errors import DumpagentError
from dumpagent.units import MIB

_READ_BYTES = 1 * MIB
# Room that is left alone: a disk that is filled to its last byte breaks other programs.
_SPARE_BYTES = 16 * MIB

Advance = Callable[[int], None]
Note = Callable[[str], None]


class TargetTaken(DumpagentError):
    """Something else stands where the dump is to go."""


class NoRoom(DumpagentError):
    """The disk has no room for the dump."""


@contextmanager
def locked_part(part_path: str, note: Note) -> Iterator[int]:
    """Give a descriptor of the part file, which nobody else writes meanwhile. Raises DumpagentError.

    What lies there counts only if no other user can have written it: else it is set aside, or TargetTaken is raised.
    """
    _set_foreign_aside(part_path, note)
    # 0600: a heap holds passwords, keys and customers' data.
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd, is_new = os.open(part_path, flags | os.O_CREAT | os.O_EXCL, 0o600), True
    except FileExistsError:
        fd, is_new = os.open(part_path, flags), False
    try:
        if not _is_ours(fd, part_path):
            raise DumpagentError(
                f"another `dumpagent get` is fetching this dump to {part_path}", hint="wait for its end"
            )
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise TargetTaken(f"{part_path} is no regular file", hint="remove it")
        # A new file has another uid where a file server squashes this one.
        if not is_new and _may_be_foreign(found):
            raise TargetTaken(
                f"{part_path} is there, and another user (uid {found.st_uid}) can have written it",
                hint="remove it, or fetch to a directory that only you can write to, with --output",
            )
        yield fd
    finally:
        os.close(fd)


def new_file(path: str) -> int:
    """Give a descriptor of a new file that only this user may read; what had the name is gone. Raises OSError."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def note_other_parts(target: str, part_path: str, note: Note) -> None:
    """Tell of the parts of other objects that lie beside the target."""
    directory, _, name = target.rpartition("/")
    with os.scandir(f"{directory}/" if "/" in target else ".") as entries:
        others = [
            entry.name
            for entry in entries
            if entry.name.startswith(f"{name}.") and entry.name.endswith((".part", ".part.unpacked"))
        ]
    for other in others:
        if other != os.path.basename(part_path) and not other.startswith(os.path.basename(part_path)):
            note(f"{other} is left of fetching another dump to this name; delete it if you do not need it")


def room_bytes(fd: int) -> int:
    """Give how many bytes may be written to the disk that the open file is on."""
    found = os.fstatvfs(fd)
    return max(0, found.f_bavail * found.f_frsize - _SPARE_BYTES)


def confirm_room(fd: int, target: str, missing_bytes: int) -> None:
    """Raise NoRoom if the disk has no room for so many bytes more."""
    free_bytes = room_bytes(fd)
    if missing_bytes > 0 and free_bytes < missing_bytes:
        raise NoRoom(
            f"{os.path.dirname(os.path.abspath(target))} has {free_bytes + _SPARE_BYTES:,} bytes free, {missing_bytes + _SPARE_BYTES:,} are needed",
            hint="name a directory on another disk with --output, or make room",
        )


def read_file(fd: int, advance: Advance) -> Iterator[bytes]:
    """Give the file's bytes from its beginning."""
    at = 0
    while chunk := os.pread(fd, _READ_BYTES, at):
        yield chunk
        at += len(chunk)
        advance(len(chunk))


def _set_foreign_aside(path: str, note: Note) -> None:
    """Unlink a part file of this user's that others may have written. What is another's, `locked_part` refuses."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and _may_be_foreign(found):
        os.unlink(path)
        note(f"others could write {path}: it is not used, the dump is fetched anew")


def _may_be_foreign(found: os.stat_result) -> bool:
    """Say whether somebody else can have written the file."""
    return found.st_uid != os.geteuid() or found.st_nlink != 1 or bool(found.st_mode & 0o022)


def _is_ours(fd: int, path: str) -> bool:
    """Lock the open file for this process; say whether that came about, and `path` still names it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, named = os.fstat(fd), os.lstat(path)
    except (BlockingIOError, FileNotFoundError):
        return False  # somebody else has it, or has just finished it
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)
