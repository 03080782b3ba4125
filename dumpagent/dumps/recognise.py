"""Says what the files of a directory are to us, with one small read for each that is new."""

from __future__ import annotations

import enum
import fnmatch
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dumpagent.dumps.globs import COMPANIONS, Globs
from dumpagent.dumps.kind import FIRST_BYTES, HEAD_BYTES, PACKED_HEAD_BYTES, FileKind, kind_of, packed_kind
from dumpagent.dumps.names import base_of_segment, dump_of_segment, is_dump_name
from dumpagent.kernel.beneath import FILE

# Copies and leftovers that the storage keeps, by the names that NetApp, ZFS, Btrfs, snapper, CephFS, Synology, QNAP,
# GlusterFS, ext4 and desktop trash give them: a dump in there was found where it was written.
NEVER_ENTERED = Globs(
    ".snapshot, ~snapshot, .snapshots, .zfs, .snap, #snapshot, @Recently-Snapshot, .ckpt, lost+found, "
    ".Trash, .Trash-*, .trash, .Trashes, $RECYCLE.BIN, .recycle, #recycle, @Recycle, .glusterfs, .stfolder"
)
# OpenJ9 names its system dumps so, and Eclipse MAT opens them; any other core file may be of any program.
_SYSTEM_DUMP = "core*.dmp"
# A directory that did not change is not listed again for so many scans: what was empty then, or is written over in
# place, is found by its inotify event, or after so many scans where there is none.
_BELIEVED_SCANS = 16
_SETTLED_NS = (
    2_000_000_000  # a file made in the same tick as the listing does not change the directory's time
)
_MOST_DIRECTORIES = 20_000
_MOST_BYTES = 24 << 20  # of all remembered names: whoever makes them chooses their number and length
_NAME_BYTES = 60  # what a name costs beside its letters
_MOST_OPEN_NAMES = 1000  # of one directory: files that must be looked at again
_MOST_DIRECTORIES_HERE = 2000  # of one directory; of more a scan names only the first


class Role(enum.Enum):
    """What a file is to us."""

    DUMP = "dump"
    SEGMENT = "segment"  # X.hprof.p0, of the dump X.hprof
    COMPANION = "companion"  # travels with a dump
    LEFT_ALONE = "left alone"  # a memory image of any program


@dataclass(frozen=True, slots=True)
class FileRules:
    """Which files are dumps whatever they hold, which are left alone, and which travel with a dump."""

    include: Globs = field(default_factory=lambda: Globs(""))
    exclude: Globs = field(default_factory=lambda: Globs(""))
    companions: Globs = field(default_factory=lambda: Globs(COMPANIONS))


@dataclass(slots=True)
class Listing:
    """What is known of a directory: the names of ours in it, and of its directories. `scans` it is believed for."""

    changed_ns: int
    names: list[str]
    directories: list[str]
    scans: int


class Recogniser:
    """Remembers between two scans which directories hold nothing new. Belongs to one thread."""

    def __init__(self, rules: FileRules | None = None, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        rules = rules or FileRules()
        self._include, self._exclude = rules.include or None, rules.exclude or None
        self._companions = rules.companions
        self._by_path = bool(self._include or self._exclude)
        self._now_ns = now_ns
        self._listings: dict[tuple[int, int], Listing] = {}
        self._bytes = 0

    def is_entered(self, name: str, below: str) -> bool:
        """Say whether a scan looks into the directory `name` of the directory `below`."""
        if NEVER_ENTERED.match(name):
            return False
        return not (self._exclude and self._exclude.match(name, below))

    def is_reached(self, below: str) -> bool:
        """Say whether a scan gets into the directory at this path below the root."""
        parts = below.split("/") if below else []
        return all(self.is_entered(part, "/".join(parts[:at])) for at, part in enumerate(parts))

    def role_of(self, directory: int, name: str, below: str) -> Role | None:
        """Say what the regular file `name` of the open directory is, whose path is `below`; None: nothing to us.

        Raises OSError if its first bytes cannot be read. Called for every file of a volume: 100,000 of them are to
        cost less than a second, most of which is the kernel's open, read and close.
        """
        if self._by_path:
            if self._exclude and self._exclude.match(name, below):
                return None
            if self._include and self._include.match(name, below):
                return Role.DUMP
        if ".hprof" in name:
            if is_dump_name(name):
                return Role.DUMP
            if dump_of_segment(name):
                return Role.SEGMENT
        kind = head_kind(directory, name)
        if kind is FileKind.CORE:
            return Role.DUMP if fnmatch.fnmatchcase(name, _SYSTEM_DUMP) else Role.LEFT_ALONE
        if kind is not FileKind.OTHER and kind is not FileKind.UNDECIDED:
            return _ROLES[kind]
        if self._companions.match(name, below):
            return Role.COMPANION
        if ".p" in name and (base := base_of_segment(name)) and _is_dump(directory, base):
            return Role.SEGMENT
        return None

    # -- directories that hold nothing new ----------------------------------------------------------------------

    def recall(self, status: os.stat_result) -> Listing | None:
        """Give what is known of a directory that has not changed since, None if it must be listed."""
        listing = self._listings.get((status.st_dev, status.st_ino))
        if listing is None:
            return None
        listing.scans -= 1
        if listing.changed_ns != status.st_mtime_ns or listing.scans <= 0:
            self._forget(status)
            return None
        return listing

    def remember(self, status: os.stat_result, names: list[str], directories: list[str]) -> None:
        """Remember what lay in a directory whose state, before it was listed, was `status`."""
        self._forget(status)
        size = _size_bytes(names) + _size_bytes(directories)
        if (
            self._now_ns() - status.st_mtime_ns < _SETTLED_NS
            or len(names) > _MOST_OPEN_NAMES
            or len(directories) > _MOST_DIRECTORIES_HERE
            or len(self._listings) >= _MOST_DIRECTORIES
            or self._bytes + size > _MOST_BYTES
        ):
            return
        scans = _BELIEVED_SCANS // 2 + status.st_ino % (_BELIEVED_SCANS // 2)  # not all of them in one scan
        self._listings[status.st_dev, status.st_ino] = Listing(status.st_mtime_ns, names, directories, scans)
        self._bytes += size

    def _forget(self, status: os.stat_result) -> None:
        known = self._listings.pop((status.st_dev, status.st_ino), None)
        if known:
            self._bytes -= _size_bytes(known.names) + _size_bytes(known.directories)


def _size_bytes(names: list[str]) -> int:
    return sum(map(len, names)) + _NAME_BYTES * len(names)


_ROLES = {FileKind.HPROF: Role.DUMP, FileKind.PHD: Role.DUMP, FileKind.JAVACORE: Role.COMPANION}


def head_kind(directory: int, name: str) -> FileKind:
    """Say what the file `name` of the open directory is by its first bytes. Raises OSError."""
    fd = os.open(name, FILE, dir_fd=directory)
    try:
        head = os.read(fd, HEAD_BYTES)
        if head and head[0] not in FIRST_BYTES:
            return FileKind.OTHER
        kind = kind_of(head)
        return packed_kind(os.pread(fd, PACKED_HEAD_BYTES, 0)) if kind is None else kind
    finally:
        os.close(fd)


def _is_dump(directory: int, name: str) -> bool:
    try:
        return head_kind(directory, name) is FileKind.HPROF
    except OSError:
        return False
