"""Finds the heap dumps below a directory, a bounded step at a time, whatever else lies there.

Goes by directory descriptors: no name that is swapped meanwhile leads out of the directory that was entered. Holds one
open directory per level and little per file, so that a million files cost time, which is cut into steps, and no memory.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

from dumpagent.dumps.files import dump_file
from dumpagent.dumps.model import DumpFile
from dumpagent.dumps.names import base_of_segment
from dumpagent.dumps.recognise import Recogniser, Role
from dumpagent.kernel.beneath import DIRECTORY, open_root, opened_parent

_DEEPEST = 48  # directories; a JVM writes to a path of at most 4,096 bytes
_ENTRIES_PER_LOOK = 256  # entries between two looks at the clock
# What one owner can make any number of is held up to here; a name has up to 255 bytes, and a scan may be 48 levels deep.
_MOST_HELD = 2000  # directories of a directory; the others are entered while it is listed
_MOST_NAMED = 1000  # directories that could not be, or were not, looked into
_MOST_LINKED = 5000  # files with several names, of one owner


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file that is something to us; `base` of a segment file is the dump that it lies beside (None: there is none)."""

    dump: DumpFile
    role: Role = Role.DUMP
    base: DumpFile | None = None

    @property
    def is_segment(self) -> bool:
        return self.role is Role.SEGMENT


@dataclass(frozen=True, slots=True)
class _Here:
    """A directory that is looked into: open on `fd`, its path `below` the root, what it is, and how deep."""

    fd: int
    below: str
    own: os.stat_result
    depth: int

    def path_of(self, name: str) -> str:
        return f"{self.below}/{name}" if self.below else name


class Scanner:
    """One walk over the dump root, a step at a time.

    `unreadable` are the directories and files that could not be looked at, with the reason: dumps may lie there, so
    nothing may be concluded from not having found one. `passed_over` counts, by owner, what is not looked at on
    purpose: directories that are too deep, and links to another user's file. `enter` is told each directory that is
    looked into, open, before its names are read. `skip` are names of directories in the root. `not_entered` are the
    directories that are left alone, with the reason; `unknown` counts files whose first bytes cannot be read.
    """

    def __init__(
        self,
        root: str,
        *,
        skip: frozenset[str] = frozenset(),
        enter: Callable[[int, str], None] | None = None,
        recogniser: Recogniser | None = None,
    ) -> None:
        self._root, self._skip, self._enter = root, skip, enter
        self._recogniser = recogniser or Recogniser()
        self._writable = True  # as far as the mount goes
        self.not_entered: dict[str, str] = {}
        self.unknown = 0
        self.unreadable: dict[str, str] = {}
        self.passed_over: Counter[int] = Counter()
        self.finished = False
        self._linked: dict[
            int, set[tuple[int, int]]
        ] = {}  # by owner: files with more than one name are found once
        self._walk = self._all()

    def step(self, until: Callable[[], bool]) -> list[FoundFile]:
        """Go on until `until()`; give what was found. `finished` is then true if there is no more."""
        found: list[FoundFile] = []
        for each in self._walk:
            found += each
            if until():
                return found
        self.finished = True
        return found

    def close(self) -> None:
        """Give up the walk and what it holds open."""
        if isinstance(self._walk, Generator):
            self._walk.close()

    def _all(self) -> Iterator[list[FoundFile]]:
        try:
            fd = open_root(self._root)
        except FileNotFoundError:
            self.unreadable[self._root] = "the directory does not exist"
            return
        except OSError as error:
            self.unreadable[self._root] = os.strerror(error.errno or 0)
            return
        try:
            self._writable = not _is_read_only(fd)
            yield from self._directory(fd, "", 0)
        except OSError as error:
            self.unreadable[self._root] = os.strerror(error.errno or 0)
        finally:
            os.close(fd)

    def _directory(self, fd: int, below: str, depth: int) -> Iterator[list[FoundFile]]:
        """Give what lies below the directory that is open on `fd`, some files at a time."""
        try:
            if self._enter:
                self._enter(fd, below)
            own = os.fstat(fd)
            listing = self._recogniser.recall(own)
            if listing is None:
                names: list[str] = []
                directories: list[str] = []
                yield from self._listed(_Here(fd, below, own, depth), names, directories)
                self._recogniser.remember(own, names, directories)
            else:
                directories = listing.directories
                yield [each for name in listing.names if (each := self._file(fd, name, below, own))]
            for name in directories[:_MOST_HELD]:
                yield from self._inside(_Here(fd, below, own, depth), name)
        except OSError as error:
            self._cannot_look(below, error)

    def _listed(self, here: _Here, names: list[str], directories: list[str]) -> Iterator[list[FoundFile]]:
        """Look at each file of the directory; add the names that are something to us, and those of directories.

        Of more than `_MOST_HELD` directories one more is named than that, and the others are entered at once.
        """
        found: list[FoundFile] = []
        fd, below, own = here.fd, here.below, here.own
        role_of = self._recogniser.role_of
        with os.scandir(fd) as entries:
            for number, entry in enumerate(entries, start=1):
                name = entry.name
                if entry.is_file(follow_symlinks=False):
                    try:
                        role = role_of(fd, name, below)
                    except FileNotFoundError:
                        continue
                    except OSError:
                        self.unknown += 1  # what is no dump by its name may well be closed to us
                        continue
                    if role is not None:
                        if len(names) <= _MOST_HELD:
                            names.append(name)
                        if each := self._file_of(fd, name, below, own, role):
                            found.append(each)
                elif entry.is_dir(follow_symlinks=False):
                    if len(directories) <= _MOST_HELD:
                        directories.append(name)
                    if len(directories) > _MOST_HELD:
                        yield from self._inside(here, name)
                if number % _ENTRIES_PER_LOOK == 0:
                    yield found
                    found = []
        yield found

    def _inside(self, here: _Here, name: str) -> Iterator[list[FoundFile]]:
        if here.depth == 0 and name in self._skip:
            return
        yield []  # whoever made any number of directories that are not entered must not hold up others
        relpath = here.path_of(name)
        if not self._recogniser.is_entered(name, here.below):
            self._leave(relpath, "its name, or EXCLUDE")
            return
        try:
            fd = os.open(name, DIRECTORY, dir_fd=here.fd)
        except (FileNotFoundError, NotADirectoryError):
            return  # gone, or swapped for something else
        except OSError as error:
            if error.errno != errno.ELOOP:  # swapped for a link
                self._cannot_look(relpath, error)
            return
        try:
            status = os.fstat(fd)
            if status.st_dev != here.own.st_dev:
                self._leave(relpath, "another file system")
                return  # nothing that a JVM writes to by this path
            if self._writable and _is_read_only(fd):
                self._leave(relpath, "mounted read-only")
                return
            if here.depth + 1 >= _DEEPEST:
                self.passed_over[status.st_uid] += 1
                return
            yield from self._directory(fd, relpath, here.depth + 1)
        finally:
            os.close(fd)

    def _cannot_look(self, relpath: str, error: OSError) -> None:
        if len(self.unreadable) < _MOST_NAMED or not relpath:
            path = f"{self._root}/{relpath}" if relpath else self._root
            self.unreadable[path] = os.strerror(error.errno or 0)

    def _leave(self, relpath: str, reason: str) -> None:
        if len(self.not_entered) < _MOST_NAMED:
            self.not_entered[relpath] = reason

    def _role(self, fd: int, name: str, below: str) -> Role | None:
        try:
            return self._recogniser.role_of(fd, name, below)
        except FileNotFoundError:
            return None
        except OSError:
            self.unknown += 1  # what is no dump by its name may well be closed to us
            return None

    def _file(self, fd: int, name: str, below: str, own: os.stat_result) -> FoundFile | None:
        role = self._role(fd, name, below)
        return None if role is None else self._file_of(fd, name, below, own, role)

    def _file_of(self, fd: int, name: str, below: str, own: os.stat_result, role: Role) -> FoundFile | None:
        relpath = f"{below}/{name}" if below else name
        try:
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._cannot_look(relpath, error)
            return None
        dump = dump_file(self._root, relpath, status)
        if dump is None or (status.st_nlink > 1 and not self._is_first_name(status, own)):
            return None
        base = base_of_segment(name) if role is Role.SEGMENT else None
        return FoundFile(dump, role, self._base(fd, base, relpath) if base is not None else None)

    def _is_first_name(self, status: os.stat_result, own: os.stat_result) -> bool:
        """Say whether this is the name that counts of a file with several.

        A link in a directory of another user's is that user's doing: under its path the dump would count as theirs.
        """
        if own.st_uid not in (status.st_uid, 0):
            self.passed_over[own.st_uid] += 1
            return False
        key, known = (status.st_dev, status.st_ino), self._linked.setdefault(status.st_uid, set())
        if key in known:
            return False
        if len(known) >= _MOST_LINKED:
            self.passed_over[status.st_uid] += 1
            return False
        known.add(key)
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
    left_alone: list[DumpFile] = field(default_factory=list)  # core files of any program
    unreadable: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return not self.unreadable


def scan(root: str, *, skip: frozenset[str] = frozenset(), recogniser: Recogniser | None = None) -> Scan:
    """Give every regular file below `root` that has a dump's name or begins as one, oldest first.

    Symbolic links are never followed; FIFOs, sockets and devices are passed over without being opened. What vanishes
    meanwhile is not there. `skip` are paths of directories in the root that are left out. A file with two names (hard
    links) is found once. Never raises for what lies below `root`; an unreadable `root` itself stands in `unreadable`.
    """
    scanner = Scanner(root, skip=names_in(root, skip), recogniser=recogniser)
    found = scanner.step(lambda: False)
    dumps = [each.dump for each in found if each.role is Role.DUMP]
    dumps.sort(key=lambda dump: (dump.identity.mtime_ns, dump.relpath))
    return Scan(
        dumps,
        [each.dump for each in found if each.is_segment],
        [each.dump for each in found if each.role is Role.LEFT_ALONE],
        scanner.unreadable,
    )


def _is_read_only(fd: int) -> bool:
    return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)


def names_in(root: str, paths: frozenset[str]) -> frozenset[str]:
    """Give the names of those directories that lie in the root itself."""
    return frozenset(os.path.basename(path) for path in paths if os.path.dirname(path) == root.rstrip("/"))


def recognised(root: str, relpath: str, recogniser: Recogniser) -> FoundFile | None:
    """Give what the file at this path is to us, None if it is nothing, or no file. Raises OSError."""
    below = relpath.rpartition("/")[0]
    if not recogniser.is_reached(below):
        return None
    with opened_parent(root, relpath) as (directory, name):
        file = dump_file(root, relpath, os.stat(name, dir_fd=directory, follow_symlinks=False))
        role = recogniser.role_of(directory, name, below) if file else None
    return FoundFile(file, role) if file and role else None
