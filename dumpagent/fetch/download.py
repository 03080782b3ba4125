"""Brings one dump to a local file: resumed where it was cut off, checked before it gets its name, never over another file.

The bytes go to a `.part` file beside the target, whose name is made from the very object, so that parts of two objects
are never glued together. Every step can be cut off by anything; the next call goes on from what lies there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from dumpagent.dumps.owner import local_name
from dumpagent.dumps.text import printable
from dumpagent.errors import DumpagentError
from dumpagent.fetch.stored import Checksum, StoredDump
from dumpagent.fetch.stream import Damaged, Pause, Summed, read_object, unpack
from dumpagent.hprof.records import GZIP_MAGIC
from dumpagent.kernel.files import sync_directory
from dumpagent.kernel.rename import rename_noreplace
from dumpagent.store.protocol import Replaced, Store
from dumpagent.units import MIB

_READ_BYTES = 1 * MIB
# Room that is left alone: a disk that is filled to its last byte breaks other programs.
_SPARE_BYTES = 16 * MIB
_SYNC_BYTES = 256 * MIB

Advance = Callable[[int], None]
# Gives the bar for a step: what is done, the bytes of all, the bytes that are done already.
Bar = Callable[[str, int, int], AbstractContextManager[Advance]]
Note = Callable[[str], None]


class TargetTaken(DumpagentError):
    """Something else stands where the dump is to go."""


class NoRoom(DumpagentError):
    """The disk has no room for the dump."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A dump that lies under its final name. `checked`: against a checksum. `there`: it lay there before."""

    path: str
    size_bytes: int
    checked: bool
    resumed_bytes: int = 0
    there: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """One dump on its way: where it goes, and how."""

    dump: StoredDump
    target: str
    force: bool = False
    gunzip: bool = False

    @property
    def part_path(self) -> str:
        """Give the name of the unfinished file: another object, or another content of it, gives another name.

        The store is left out: through the VPN it may have another address.
        """
        stored = self.dump.stored
        which = "\0".join([stored.key, stored.etag, str(stored.size_bytes)])
        return f"{self.target}.{hashlib.sha256(os.fsencode(which)).hexdigest()[:8]}.part"


def target_of(dump: StoredDump, output: str | None, *, gunzip: bool) -> str:
    """Give the path of the file to make: `output`, or a file in it if it is a directory. Raises TargetTaken."""
    name = local_name(dump.path)
    if gunzip and ".gz" in name:
        head, _, tail = name.rpartition(".gz")
        name = head + tail
    directory = output if output and (output.endswith("/") or os.path.isdir(output)) else None
    if output and directory is None:
        return output
    if name in ("", ".", "..") or "\0" in name:
        raise TargetTaken(
            f"the key {dump.key!r} has no name for a file in it", hint="name the file with --output"
        )
    if name.startswith(".") or name != printable(name):
        raise TargetTaken(
            f"the key {printable(dump.key)} would make a hidden file, or one whose name steers a terminal",
            hint="see whose object that is; name the file with --output to fetch it all the same",
        )
    return os.path.join(directory, name) if directory else name


def fetch(store: Store, wish: Fetch, *, bar: Bar, note: Note, pause: Pause) -> Fetched:
    """Bring the dump to its target and give what came of it. `note` is told, in a sentence, what a person should know.

    Raises TargetTaken, NoRoom, Damaged, DumpagentError; Unreachable, Refused from the store; OSError from the disk.
    After each the part file goes on to be of use, unless the object is another one by now.
    """
    there = _already(wish, bar)
    if there:
        return there
    part_path = wish.part_path
    _note_other_parts(wish.target, part_path, note)
    with _locked(part_path) as fd:
        return _fetch(store, wish, part_path, fd, bar=bar, note=note, pause=pause)


def _fetch(
    store: Store, wish: Fetch, part_path: str, fd: int, *, bar: Bar, note: Note, pause: Pause
) -> Fetched:
    dump = wish.dump
    resumed_bytes = os.fstat(fd).st_size
    if resumed_bytes > dump.size_bytes:
        os.ftruncate(fd, 0)
        resumed_bytes = 0
    unpacked_bytes = (dump.original_size_bytes or dump.size_bytes) if wish.gunzip else 0
    _confirm_room(fd, wish.target, dump.size_bytes - resumed_bytes + unpacked_bytes)
    try:
        checked = _complete(store, dump, fd, bar=bar, note=note, pause=pause)
    except Damaged as error:
        if not resumed_bytes:
            raise Damaged(
                f"{dump.key} arrived damaged: {error}",
                hint=f"the bytes are left in {part_path}; run it again to fetch it anew, `dumpagent verify` tells whether the store's are damaged",
            ) from error
        note(f"the part that lay here is damaged ({error}): fetching it anew")
        os.ftruncate(fd, 0)
        resumed_bytes = 0
        checked = _complete(store, dump, fd, bar=bar, note=note, pause=pause)
    except Replaced as error:
        os.unlink(part_path)
        raise Replaced(
            f"{dump.key} was replaced by another object while it was fetched; nothing of it is kept",
            hint="run it again to fetch what is there now",
        ) from error
    os.fsync(fd)
    finished_path = part_path
    if wish.gunzip:
        if _begins_with_gzip(fd):
            finished_path = f"{part_path}.unpacked"
            _unpack_to(finished_path, fd, dump, bar)
        else:
            note("it is not compressed: it is kept as it is")
    _give_name(finished_path, wish)
    if finished_path != part_path:
        os.unlink(part_path)
    sync_directory(os.path.dirname(wish.target) or ".")
    return Fetched(wish.target, os.stat(wish.target).st_size, checked, resumed_bytes)


def _complete(store: Store, dump: StoredDump, fd: int, *, bar: Bar, note: Note, pause: Pause) -> bool:
    """Bring what is missing in the part file, and check all of it; say whether there was a checksum. Raises Damaged."""
    wanted = dump.checksum
    have_bytes, crc32 = os.fstat(fd).st_size, 0
    if have_bytes and wanted and not wanted.unpacked:
        with bar("checking what is here", have_bytes, 0) as advance:
            summed = Summed(_read(fd, advance))
            for _ in summed:
                pass
            crc32 = summed.crc32

    def broken(offset: int, _error: Exception) -> None:
        note(f"the connection broke at {offset:,} of {dump.size_bytes:,} bytes; going on from there")

    with bar(dump.name, dump.size_bytes, have_bytes) as advance:
        arriving = Summed(read_object(store, dump.stored, start=have_bytes, pause=pause, broken=broken))
        arriving.crc32 = crc32
        at, synced = have_bytes, have_bytes
        for chunk in arriving:
            _write(fd, chunk, at)
            at += len(chunk)
            advance(len(chunk))
            if at - synced >= _SYNC_BYTES:  # so that little is left to do at the end, and after a power cut
                os.fdatasync(fd)
                synced = at
    if wanted is None:
        return False
    if wanted.unpacked:
        with bar("checking", dump.size_bytes, 0) as advance:
            unpacked = Summed(unpack(_read(fd, advance)))
            for _ in unpacked:
                pass
        _confirm(wanted, unpacked.size_bytes, unpacked.crc32)
    else:
        _confirm(wanted, at, arriving.crc32)
    return True


def _confirm(wanted: Checksum, size_bytes: int, crc32: int) -> None:
    if size_bytes != wanted.size_bytes:
        raise Damaged(f"it has {size_bytes:,} bytes, the dump had {wanted.size_bytes:,}")
    if crc32 != wanted.crc32:
        raise Damaged(f"its CRC32 is {crc32:08x}, the dump's was {wanted.crc32:08x}")


# -- the local file -----------------------------------------------------------------------------------------------


def _already(wish: Fetch, bar: Bar) -> Fetched | None:
    """Say that the target is this very dump; None if there is none, or it may be replaced. Raises TargetTaken."""
    try:
        status = os.stat(wish.target)
    except FileNotFoundError:
        if os.path.islink(wish.target):
            raise TargetTaken(f"{wish.target} is a symbolic link to nothing", hint="remove it") from None
        return None
    if not stat.S_ISREG(status.st_mode):
        raise TargetTaken(
            f"{wish.target} is there, and is no regular file", hint="name another file with --output"
        )
    wanted = wish.dump.checksum
    as_stored = wanted and not wanted.unpacked and not wish.gunzip
    unpacked = wanted and wanted.unpacked and wish.gunzip
    if wanted and (as_stored or unpacked) and status.st_size == wanted.size_bytes:
        fd = os.open(wish.target, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with bar("checking what is here", status.st_size, 0) as advance:
                summed = Summed(_read(fd, advance))
                for _ in summed:
                    pass
        finally:
            os.close(fd)
        if summed.crc32 == wanted.crc32:
            return Fetched(wish.target, status.st_size, checked=True, there=True)
    if wish.force:
        return None
    raise TargetTaken(
        f"{wish.target} is there, and is not this dump",
        hint="name another file or directory with --output, or --force to replace it",
    )


@contextmanager
def _locked(part_path: str) -> Iterator[int]:
    """Give a descriptor of the part file, which nobody else writes meanwhile. Raises DumpagentError."""
    # 0600: a heap holds passwords, keys and customers' data.
    fd = os.open(part_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    try:
        if not _is_ours(fd, part_path):
            raise DumpagentError(
                f"another `dumpagent get` is fetching this dump to {part_path}", hint="wait for its end"
            )
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise TargetTaken(f"{part_path} is no regular file", hint="remove it")
        yield fd
    finally:
        os.close(fd)


def _is_ours(fd: int, path: str) -> bool:
    """Lock the open file for this process; say whether that came about, and `path` still names it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        ours, named = os.fstat(fd), os.lstat(path)
    except (BlockingIOError, FileNotFoundError):
        return False  # somebody else has it, or has just finished it
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)


def _note_other_parts(target: str, part_path: str, note: Note) -> None:
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


def _confirm_room(fd: int, target: str, missing_bytes: int) -> None:
    found = os.fstatvfs(fd)
    free_bytes = found.f_bavail * found.f_frsize
    if missing_bytes and free_bytes < missing_bytes + _SPARE_BYTES:
        raise NoRoom(
            f"{os.path.dirname(os.path.abspath(target))} has {free_bytes:,} bytes free, {missing_bytes + _SPARE_BYTES:,} are needed",
            hint="name a directory on another disk with --output, or make room",
        )


def _read(fd: int, advance: Advance) -> Iterator[bytes]:
    at = 0
    while chunk := os.pread(fd, _READ_BYTES, at):
        yield chunk
        at += len(chunk)
        advance(len(chunk))


def _write(fd: int, chunk: bytes, at: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(fd, view, at)
        view, at = view[written:], at + written


def _begins_with_gzip(fd: int) -> bool:
    return os.pread(fd, len(GZIP_MAGIC), 0) == GZIP_MAGIC


def _unpack_to(path: str, packed_fd: int, dump: StoredDump, bar: Bar) -> None:
    """Make `path` of what the part file unpacks to, durably. Raises Damaged, OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with bar("unpacking", dump.size_bytes, 0) as advance:
            at = 0
            for piece in unpack(_read(packed_fd, advance)):
                _write(fd, piece, at)
                at += len(piece)
        os.fsync(fd)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)


def _give_name(path: str, wish: Fetch) -> None:
    if wish.force:
        os.rename(path, wish.target)
        return
    try:
        rename_noreplace(path, wish.target)
    except FileExistsError as error:
        raise TargetTaken(
            f"{wish.target} was made by somebody else meanwhile; the dump is in {path}",
            hint="name another file with --output, or --force to replace it",
        ) from error
    except OSError as error:
        # A file system without such a rename and without hard links (exFAT, some network shares).
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP) or os.path.lexists(wish.target):
            raise
        os.rename(path, wish.target)
