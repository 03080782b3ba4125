"""Finds the heap dumps below a directory, whatever else lies there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.dumps.names import dump_of_segment, is_dump_name


@dataclass(slots=True)
class Scan:
    """What one walk over the dump root found.

    `unreadable` are the directories and files that could not be looked at, with the reason: dumps may lie there, so
    nothing may be concluded from not having found one.
    """

    dumps: list[DumpFile] = field(default_factory=list)
    parts: list[DumpFile] = field(default_factory=list)  # X.hprof.p0 ...: a living JVM's, or orphans
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.unreadable


def scan(root: str, *, skip: frozenset[str] = frozenset()) -> Scan:
    """Give every regular file below `root` with a dump's name, oldest first.

    Symbolic links are never followed; FIFOs, sockets and devices are passed over without being opened. What vanishes
    meanwhile is not there. `skip` are paths of directories that are left out. A file with two names (hard links)
    is found once. Never raises for what lies below `root`; an unreadable `root` itself stands in `unreadable`.
    """
    found = Scan()
    seen: set[tuple[int, int]] = set()
    open_directories = [""]
    while open_directories:
        below = open_directories.pop()
        path = f"{root}/{below}" if below else root
        if path in skip:
            continue
        try:
            for entry in _entries(path):
                relpath = f"{below}/{entry.name}" if below else entry.name
                is_part = dump_of_segment(entry.name) is not None
                if is_part or is_dump_name(entry.name):
                    dump = _dump_of(entry, root, relpath, found)
                    if dump and (dump.device, dump.identity.inode) not in seen:
                        seen.add((dump.device, dump.identity.inode))
                        (found.parts if is_part else found.dumps).append(dump)
                if entry.is_dir(follow_symlinks=False):
                    open_directories.append(relpath)
        except FileNotFoundError:
            if not below:
                found.unreadable[path] = "the directory does not exist"
        except OSError as error:
            found.unreadable[path] = os.strerror(error.errno or 0)
    found.dumps.sort(key=lambda dump: (dump.identity.mtime_ns, dump.relpath))
    return found


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from entries


def _dump_of(entry: os.DirEntry[str], root: str, relpath: str, found: Scan) -> DumpFile | None:
    try:
        if not entry.is_file(follow_symlinks=False):
            return None
        return dump_file(root, relpath, entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        found.unreadable[f"{root}/{relpath}"] = os.strerror(error.errno or 0)
        return None


def dump_file(root: str, relpath: str, status: os.stat_result) -> DumpFile | None:
    """Give the dump file that `status` describes, None if it is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        return None
    identity = Identity(status.st_ino, status.st_size, status.st_mtime_ns)
    return DumpFile(root, relpath, identity, device=status.st_dev, uid=status.st_uid)
