"""Brings one dump to a local file: resumed where it was cut off, checked before it gets its name, never over another file.

The bytes go to a `.part` file beside the target, whose name is made from the very object, so that parts of two objects
are never glued together. Every step can be cut off by anything; the next call goes on from what lies there.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from isal import isal_zlib

from dumpagent.dumps.owner import local_name
from dumpagent.dumps.text import printable
from dumpagent.fetch.part_file import (
    Advance,
    Note,
    TargetTaken,
    confirm_room,
    locked_part,
    note_other_parts,
    read_file,
)
from dumpagent.fetch.part_map import PartMap, range_bytes_noted
from dumpagent.fetch.ranges import RANGE_BYTES, bring_ranges, connections_to
from dumpagent.fetch.stored import Checksum, StoredDump
from dumpagent.fetch.stream import Broken, Damaged, Pause, Summed, read_object, unpack
from dumpagent.fetch.unpacking import begins_with_gzip, unpack_to, unpacked_size
from dumpagent.kernel.files import sync_directory, write_at
from dumpagent.kernel.rename import rename_noreplace
from dumpagent.store.protocol import Replaced, Store
from dumpagent.units import MIB

_SYNC_BYTES = 256 * MIB
# What programs that open heap dumps look for; a number or a claimed dump's time may stand behind it.
_DUMPS_NAME = re.compile(r"(?i)\.(hprof|phd|dmp)(\.gz|\.[0-9TZ]+)*$")

# Gives the bar for a step: what is done, the bytes of all, the bytes that are done already.
Bar = Callable[[str, int, int], AbstractContextManager[Advance]]


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
    if not is_harmless(name):
        raise TargetTaken(
            f"the key {printable(dump.key)} would make a hidden file, or one whose name steers a terminal",
            hint="see whose object that is; name the file with --output to fetch it all the same",
        )
    if not _DUMPS_NAME.search(name):  # not a script, nor a file that some program reads by its name
        name += ".hprof"
    return os.path.join(directory, name) if directory else name


def targets_of(dumps: Sequence[StoredDump], output: str | None, *, gunzip: bool) -> list[str]:
    """Give the path of the file for each dump; where two would have the same, their keys tell them apart. Raises TargetTaken."""
    targets = [target_of(dump, output, gunzip=gunzip) for dump in dumps]
    times = Counter(targets)
    return [
        os.path.join(os.path.dirname(target), f"{_folder_of(dump)}_{os.path.basename(target)}")
        if times[target] > 1
        else target
        for dump, target in zip(dumps, targets, strict=True)
    ]


def _folder_of(dump: StoredDump) -> str:
    folder = re.sub(r"[^A-Za-z0-9._-]+", "_", dump.path.rpartition("/")[0])
    return folder.lstrip(".") or "dump"


def is_harmless(name: str) -> bool:
    """Say whether a file may get a name that came from the bucket: it is no hidden one, and steers no terminal."""
    return bool(name) and not name.startswith(".") and "/" not in name and name == printable(name)


def fetch(store: Store, wish: Fetch, *, bar: Bar, note: Note, pause: Pause) -> Fetched:
    """Bring the dump to its target and give what came of it. `note` is told, in a sentence, what a person should know.

    Raises TargetTaken, NoRoom, Damaged, DumpagentError; Unreachable, Refused from the store; OSError from the disk.
    After each the part file goes on to be of use, unless the object is another one by now.
    """
    there = _already(wish, bar)
    if there:
        return there
    part_path = wish.part_path
    note_other_parts(wish.target, part_path, note)
    with locked_part(part_path, note) as fd:
        return _fetch(_Errands(store, wish, fd, bar, note, pause), part_path)


@dataclass(frozen=True, slots=True)
class _Errands:
    """What the steps of one fetch share: `fd` is the part file."""

    store: Store
    wish: Fetch
    fd: int
    bar: Bar
    note: Note
    pause: Pause

    @property
    def dump(self) -> StoredDump:
        return self.wish.dump


def _fetch(run: _Errands, part_path: str) -> Fetched:
    dump, wish, fd = run.dump, run.wish, run.fd
    resumed_bytes = _here_bytes(fd, dump.size_bytes)
    unpacked_bytes = (dump.original_size_bytes or dump.size_bytes) if wish.gunzip else 0
    confirm_room(fd, wish.target, dump.size_bytes - resumed_bytes + unpacked_bytes)
    try:
        checked = _complete(run)
    except Damaged as error:
        if not resumed_bytes:
            raise Damaged(
                f"{dump.key} arrived damaged: {error}",
                hint=f"the bytes are left in {part_path}; run it again to fetch it anew, `dumpagent verify` tells whether the store's are damaged",
            ) from error
        run.note(f"the part that lay here is damaged ({error}): fetching it anew")
        os.ftruncate(fd, 0)
        resumed_bytes = 0
        checked = _complete(run)
    except Replaced as error:
        os.unlink(part_path)
        raise Replaced(
            f"{dump.key} was replaced by another object while it was fetched; nothing of it is kept",
            hint="run it again to fetch what is there now",
        ) from error
    os.fsync(fd)
    finished_path = part_path
    if wish.gunzip:
        if begins_with_gzip(fd):
            finished_path = f"{part_path}.unpacked"
            _unpack(run, finished_path)
        else:
            run.note("it is not compressed: it is kept as it is")
    _give_name(finished_path, wish)
    if finished_path != part_path:
        os.unlink(part_path)
    sync_directory(os.path.dirname(wish.target) or ".")
    return Fetched(wish.target, os.stat(wish.target).st_size, checked, resumed_bytes)


def _here_bytes(fd: int, size_bytes: int) -> int:
    """Give how much of an object of `size_bytes` the part file has, as it says itself."""
    have_bytes = os.fstat(fd).st_size
    if noted := range_bytes_noted(fd, size_bytes):
        return PartMap(fd, size_bytes, noted).noted_bytes()
    if have_bytes > size_bytes:
        os.ftruncate(fd, 0)
        return 0
    return have_bytes


def _complete(run: _Errands) -> bool:
    """Bring what is missing in the part file, and check all of it; say whether there was a checksum. Raises Damaged."""
    fd, dump, wanted = run.fd, run.dump, run.dump.checksum
    noted = range_bytes_noted(fd, dump.size_bytes)
    missing_bytes = dump.size_bytes - _here_bytes(fd, dump.size_bytes)
    connections = connections_to(run.store, dump.stored, missing_bytes)
    if noted or connections > 1:
        crc32 = _bring_ranges(run, noted, connections)
    else:
        crc32 = _bring_on(run)
    if wanted is None:
        return False
    if wanted.unpacked:
        with run.bar("checking", dump.size_bytes, 0) as advance:
            unpacked = Summed(unpack(read_file(fd, advance), most_bytes=wanted.size_bytes))
            for _ in unpacked:
                pass
        _confirm(wanted, unpacked.size_bytes, unpacked.crc32)
    else:
        _confirm(wanted, dump.size_bytes, crc32)
    return True


def _bring_on(run: _Errands) -> int:
    """Bring what is missing behind what is here, over one connection, and give the CRC32 of all."""
    fd, dump = run.fd, run.dump
    have_bytes, crc32 = os.fstat(fd).st_size, 0
    if have_bytes and dump.checksum and not dump.checksum.unpacked:
        with run.bar("checking what is here", have_bytes, 0) as advance:
            crc32 = _crc32_of(fd, advance)
    with run.bar(dump.name, dump.size_bytes, have_bytes) as advance:
        at, synced = have_bytes, have_bytes
        for chunk in read_object(
            run.store, dump.stored, start=have_bytes, pause=run.pause, broken=_broken(run)
        ):
            write_at(fd, chunk, at)
            crc32 = isal_zlib.crc32(chunk, crc32)
            at += len(chunk)
            advance(len(chunk))
            if at - synced >= _SYNC_BYTES:  # so that little is left to do at the end, and after a power cut
                os.fdatasync(fd)
                synced = at
    return crc32


def _bring_ranges(run: _Errands, noted: int | None, connections: int) -> int:
    """Bring the ranges that are missing, several at once, and give the CRC32 of all."""
    dump = run.dump
    part = PartMap(run.fd, dump.size_bytes, noted or RANGE_BYTES)
    with run.bar("checking what is here", part.noted_bytes(), 0) as advance:
        damaged = part.read(advance) if noted else part.begin(advance)
    if damaged:
        ranges = "1 range" if damaged == 1 else f"{damaged} ranges"
        run.note(
            f"{ranges} of the part that lay here {'is' if damaged == 1 else 'are'} damaged: fetching anew"
        )
    with run.bar(dump.name, dump.size_bytes, part.done_bytes) as advance:
        bring_ranges(
            run.store,
            dump.stored,
            part,
            connections=connections,
            advance=advance,
            pause=run.pause,
            broken=_broken(run),
        )
    part.finish()
    return part.crc32


def _broken(run: _Errands) -> Broken:
    size_bytes = run.dump.size_bytes
    return lambda offset, _error: run.note(
        f"the connection broke at {offset:,} of {size_bytes:,} bytes; going on from there"
    )


def _unpack(run: _Errands, path: str) -> None:
    """Make `path` of what the part file unpacks to. Raises NoRoom, Damaged, OSError."""
    dump, wanted = run.dump, run.dump.checksum
    if wanted and wanted.unpacked:
        size_bytes = wanted.size_bytes  # it was checked
    else:  # the JVM compressed it, and nobody has told what it unpacks to
        with run.bar("measuring what it unpacks to", dump.size_bytes, 0) as advance:
            size_bytes = unpacked_size(run.fd, advance)
    confirm_room(run.fd, run.wish.target, size_bytes)
    with run.bar("unpacking", dump.size_bytes, 0) as advance:
        unpack_to(path, run.fd, size_bytes, advance)


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
                crc32 = _crc32_of(fd, advance)
        finally:
            os.close(fd)
        if crc32 == wanted.crc32:
            return Fetched(wish.target, status.st_size, checked=True, there=True)
    if wish.force:
        return None
    raise TargetTaken(
        f"{wish.target} is there, and is not this dump",
        hint="name another file or directory with --output, or --force to replace it",
    )


def _crc32_of(fd: int, advance: Advance) -> int:
    crc32 = 0
    for chunk in read_file(fd, advance):
        crc32 = isal_zlib.crc32(chunk, crc32)
    return crc32


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
