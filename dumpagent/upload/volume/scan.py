"""Finds the heap dumps below a directory, a bounded step at a time, whatever else lies there.

Goes by directory descriptors: no name that is swapped meanwhile leads out of the directory that was entered. Holds one
open directory per level and nothing per file, so that a million files cost time, which is cut into steps, and no memory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.dumps.names import dump_of_segment, is_dump_name
from dumpagent.kernel.beneath import DIRECTORY, open_root

_DEEPEST = 48  # directories; a JVM writes to a path of at most 4,096 bytes
_ENTRIES_PER_LOOK = 64  # entries between two looks at the clock


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A dump, or a segment file with the dump that it lies beside (None: there is none)."""

    dump: DumpFile
    is_segment: bool = False
    base: DumpFile | None = None


class Scanner:
    """One walk over the dump root, a step at a time.

    `unreadable` are the directories and files that could not be looked at, with the reason: dumps may lie there, so
    nothing may be concluded from not having found one. `passed_over` counts, by owner, what is not looked at on
    purpose: directories that are too deep, and links to another user's file. `enter` is told each directory that is
    looked into, open, before its names are read. `skip` are names of directories in the root.
    """

    def __init__(
        self,
        root: str,
        *,
        skip: frozenset[str] = frozenset(),
        enter: Callable[[int, str], None] = lambda _fd, _relpath: None,
    ) -> None:
        self._root, self._skip, self._enter = root, skip, enter
        self.unreadable: dict[str, str] = {}
        self.passed_over: Counter[int] = Counter()
        self.finished = False
        self._linked: set[tuple[int, int]] = set()  # of files with more than one name: found once
        self._walk = self._all()

    def step(self, until: Callable[[], bool]) -> list[FoundFile]:
        """Go on until `until()`; give what was found. `finished` is then true if there is no more."""
        found: list[FoundFile] = []
        for number, each in enumerate(self._walk, start=1):
            if each is not None:
                found.append(each)
            if number % _ENTRIES_PER_LOOK == 0 and until():
                return found
        self.finished = True
        return found

    def close(self) -> None:
        """Give up the walk and what it holds open."""
        if isinstance(self._walk, Generator):
            self._walk.close()

    def _all(self) -> Iterator[FoundFile | None]:
        try:
            fd = open_root(self._root)
        except FileNotFoundError:
            self.unreadable[self._root] = "the directory does not exist"
            return
        except OSError as error:
            self.unreadable[self._root] = os.strerror(error.errno or 0)
            return
        try:
            yield from self._directory(fd, "", 0)
        finally:
            os.close(fd)

    def _directory(self, fd: int, below: str, depth: int) -> Iterator[FoundFile | None]:
        """Give what lies below the directory that is open on `fd`, None for each name that is nothing to us."""
        path = f"{self._root}/{below}" if below else self._root
        try:
            self._enter(fd, below)
            own = os.fstat(fd)
            with os.scandir(fd) as entries:
                for entry in entries:
                    relpath = f"{below}/{entry.name}" if below else entry.name
                    yield self._file(fd, entry, relpath, own)
                    if entry.is_dir(follow_symlinks=False) and not (depth == 0 and entry.name in self._skip):
                        yield from self._inside(fd, entry.name, relpath, own, depth)
        except OSError as error:
            self.unreadable[path] = os.strerror(error.errno or 0)

    def _inside(
        self, above: int, name: str, relpath: str, own: os.stat_result, depth: int
    ) -> Iterator[FoundFile | None]:
        try:
            fd = os.open(name, DIRECTORY, dir_fd=above)
        except (FileNotFoundError, NotADirectoryError):
            return  # gone, or swapped for something else
        except OSError as error:
            if error.errno != errno.ELOOP:  # swapped for a link
                self.unreadable[f"{self._root}/{relpath}"] = os.strerror(error.errno or 0)
            return
        try:
            status = os.fstat(fd)
            if status.st_dev != own.st_dev:
                return  # another file system: nothing that a JVM writes to by this path
            if depth + 1 >= _DEEPEST:
                self.passed_over[status.st_uid] += 1
                return
            yield from self._directory(fd, relpath, depth + 1)
        finally:
            os.close(fd)

    def _file(self, fd: int, entry: os.DirEntry[str], relpath: str, own: os.stat_result) -> FoundFile | None:
        base = dump_of_segment(entry.name)
        if base is None and not is_dump_name(entry.name):
            return None
        try:
            if not entry.is_file(follow_symlinks=False):
                return None
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self.unreadable[f"{self._root}/{relpath}"] = os.strerror(error.errno or 0)
            return None
        dump = dump_file(self._root, relpath, status)
        if dump is None or (status.st_nlink > 1 and not self._is_first_name(status, own)):
            return None
        return FoundFile(dump, base is not None, self._base(fd, base, relpath) if base is not None else None)

    def _is_first_name(self, status: os.stat_result, own: os.stat_result) -> bool:
        """Say whether this is the name that counts of a file with several.

        A link in a directory of another user's is that user's doing: under its path the dump would count as theirs.
        """
        if own.st_uid not in (status.st_uid, 0):
            self.passed_over[own.st_uid] += 1
            return False
        key = (status.st_dev, status.st_ino)
        if key in self._linked:
            return False
        self._linked.add(key)
        return True

    def _base(self, fd: int, name: str, relpath: str) -> DumpFile | None:
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        below = relpath.rpartition("/")[0]
        return dump_file(self._root, f"{below}/{name}" if below else name, status)


@dataclass(slots=True)
class Scan:
    """What one whole walk over the dump root found; see `Scanner`."""

    dumps: list[DumpFile] = field(default_factory=list)
    parts: list[DumpFile] = field(default_factory=list)  # X.hprof.p0 ...: a living JVM's, or orphans
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.unreadable


def scan(root: str, *, skip: frozenset[str] = frozenset()) -> Scan:
    """Give every regular file below `root` with a dump's name, oldest first.

    Symbolic links are never followed; FIFOs, sockets and devices are passed over without being opened. What vanishes
    meanwhile is not there. `skip` are paths of directories in the root that are left out. A file with two names (hard
    links) is found once. Never raises for what lies below `root`; an unreadable `root` itself stands in `unreadable`.
    """
    scanner = Scanner(root, skip=names_in(root, skip))
    found = scanner.step(lambda: False)
    dumps = [each.dump for each in found if not each.is_segment]
    dumps.sort(key=lambda dump: (dump.identity.mtime_ns, dump.relpath))
    return Scan(dumps, [each.dump for each in found if each.is_segment], scanner.unreadable)


def names_in(root: str, paths: frozenset[str]) -> frozenset[str]:
    """Give the names of those directories that lie in the root itself."""
    return frozenset(os.path.basename(path) for path in paths if os.path.dirname(path) == root.rstrip("/"))


def dump_file(root: str, relpath: str, status: os.stat_result) -> DumpFile | None:
    """Give the dump file that `status` describes, None if it is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        return None
    identity = Identity(status.st_ino, status.st_size, status.st_mtime_ns)
    return DumpFile(root, relpath, identity, device=status.st_dev, uid=status.st_uid)
