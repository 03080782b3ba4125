"""Wakes the agent when a file below the dump root was closed after writing or renamed into place."""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType

from inotify_simple import Event, INotify, flags

from dumpagent.dumps.names import is_dump_name
from dumpagent.dumps.recognise import Role
from dumpagent.kernel.beneath import opened_directory
from dumpagent.kernel.lease import network_file_system
from dumpagent.observe.events import Tell
from dumpagent.observe.events.volume import (
    WatchImpaired,
    WatchLimited,
    WatchOverflowed,
    WatchRemote,
    WatchUnavailable,
)
from dumpagent.upload.volume.scan import Scanner, names_in

# What is finished says CLOSE_WRITE or MOVED_TO; CREATE is there for new directories, and for dumps that begin.
_FINISHED = flags.CLOSE_WRITE | flags.MOVED_TO
_DIRECTORY_MASK = (
    _FINISHED | flags.CREATE | flags.MOVED_FROM | flags.MOVE_SELF | flags.ONLYDIR | flags.EXCL_UNLINK
)
# Names in directories that were just made, and dumps that were closed in one directory and in all, between two looks;
# more are left to the scan, which goes in steps. A whole tree can be moved into a directory that was just made.
_MOST_AT_ONCE, _MOST_OF_DIRECTORY, _MOST_DUMPS = 1000, 200, 2000
# Each watch keeps an inode in the kernel's memory, charged to our container, and root's watches are few on a node whose
# kubelet needs them: whoever makes directories must not take them all.
_MOST_WATCHES, _MOST_WATCHES_OF_OWNER = 10_000, 2000
_MOST_OTHERS = 500  # a second: a log may be opened and closed for each of its lines


@dataclass(slots=True)
class Woken:
    """What may be finished: dump names relative to the root, or anything at all (`everything`); `begun`: a dump is.

    `others` are files of other names, `created` those that have just got their name: they may have been whole before,
    as a rescued dump is, which is linked.
    """

    relpaths: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    created: set[str] = field(default_factory=set)
    everything: bool = False
    begun: bool = False


@dataclass(frozen=True, slots=True)
class _Watched:
    """A directory that is watched, by its path below the root, and which it is."""

    relpath: str
    uid: int
    inode: int


class Watch:
    """Watches over every directory below `root`, also those made later; `skip` are paths that are left out.

    The scan says which there are: `begin`, `enter` for each before its names are read, so that nothing is missed, and
    `finish`. What cannot be watched is told once, with a hint; then the scan alone finds what lies there.
    """

    def __init__(
        self, inotify: INotify, root: str, *, tell: Tell, skip: frozenset[str] = frozenset()
    ) -> None:
        self._inotify, self._root, self._tell = inotify, root, tell
        self._skip = names_in(root, skip)
        self._watched: dict[int, _Watched] = {}  # by watch descriptor
        self._known: dict[int, int] = {}  # the watch descriptor by inode
        self._of_owner: Counter[int] = Counter()
        self._entered: set[int] = set()  # since `begin`
        self._left = 0  # names that may still be looked at until the next `read`
        self._told: set[type[WatchImpaired]] = set()

    def fileno(self) -> int:
        """Give the descriptor that becomes readable when there is something to read."""
        return int(self._inotify.fileno())

    def begin(self) -> None:
        """Begin to take note of which directories there are."""
        self._entered = set()

    def enter(self, directory: int, relpath: str) -> None:
        """Watch the directory that is open on `directory`, whatever its path is made to mean meanwhile."""
        wd = self._add(directory, relpath)
        if wd is not None:
            self._entered.add(wd)

    def finish(self) -> None:
        """Forget the directories that were not entered since `begin`: they are gone, or had another name."""
        for gone in set(self._watched) - self._entered:
            self._forget(gone)
            try:
                self._inotify.rm_watch(gone)
            except OSError:
                pass  # EINVAL: it went with its directory

    def cover(self) -> Woken:
        """Watch every directory that is there now, in one go. What came up unseen meanwhile is in the answer."""
        known, woken = set(self._watched), Woken()
        self.begin()
        scanner = Scanner(self._root, skip=self._skip, enter=self.enter)
        found = scanner.step(lambda: False)
        self.finish()
        if set(self._watched) - known:
            woken.relpaths.update(each.dump.relpath for each in found if each.role is Role.DUMP)
        return woken

    def read(self) -> Woken:
        """Say what has happened since the last call; never waits."""
        woken, self._left = Woken(), _MOST_AT_ONCE
        dumps: Counter[int] = Counter()  # by directory
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                self._tell_once(
                    WatchOverflowed,
                    "the kernel's queue of events was full",
                    "raise fs.inotify.max_queued_events on the node if this comes often",
                )
                woken.everything = True
            elif event.wd not in self._watched:
                continue
            elif event.mask & flags.IGNORED:
                self._forget(event.wd)
                self._entered.discard(event.wd)
            elif event.mask & (flags.UNMOUNT | flags.MOVE_SELF):
                woken.everything = True
            elif event.mask & flags.ISDIR:
                if event.mask & (flags.MOVED_FROM | flags.MOVED_TO):
                    woken.everything = True  # the names of all that lies below it have changed
                elif event.mask & flags.CREATE:
                    self._cover_new(_join(self._watched[event.wd].relpath, event.name), woken)
            elif event.mask & (_FINISHED | flags.CREATE):
                if dumps[event.wd] >= _MOST_OF_DIRECTORY or dumps.total() >= _MOST_DUMPS:
                    woken.everything = True
                else:
                    dumps[event.wd] += is_dump_name(event.name)
                    _note(woken, _join(self._watched[event.wd].relpath, event.name), event)
        return woken

    def _forget(self, wd: int) -> None:
        gone = self._watched.pop(wd)
        self._of_owner[gone.uid] -= 1
        if self._known.get(gone.inode) == wd:
            del self._known[gone.inode]

    def _has_room(self, uid: int) -> bool:
        return len(self._watched) < _MOST_WATCHES and self._of_owner[uid] < _MOST_WATCHES_OF_OWNER

    def _add(self, directory: int, relpath: str) -> int | None:
        status = os.fstat(directory)
        wd = self._known.get(status.st_ino)
        if wd is None and not self._has_room(status.st_uid):
            self._tell_once(
                WatchLimited,
                f"more directories than are watched, at {self._root}/{relpath} of uid {status.st_uid}",
                _SCAN_HINT,
            )
            return None
        try:
            # Through the descriptor: a path could lead elsewhere by now. Source: proc_pid_fd(5), a magic link.
            wd = int(self._inotify.add_watch(f"/proc/self/fd/{directory}", _DIRECTORY_MASK))
        except OSError as error:
            path = f"{self._root}/{relpath}" if relpath else self._root
            if error.errno == errno.ENOSPC:
                self._tell_once(
                    WatchLimited,
                    f"no more watches at {path}",
                    "raise fs.inotify.max_user_watches on the node",
                )
            elif error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                self._tell_once(WatchUnavailable, f"{path}: {error.strerror}", _SCAN_HINT)
            return None
        if wd in self._watched:
            self._forget(wd)
        self._watched[wd] = _Watched(relpath, status.st_uid, status.st_ino)
        self._known[status.st_ino] = wd
        self._of_owner[status.st_uid] += 1
        return wd

    def _cover_new(self, relpath: str, woken: Woken) -> None:
        """Watch a directory that was just made, with what is in it already; a large tree is left to the scan."""
        if relpath in self._skip:
            return
        if self._left <= 0:
            woken.everything = True
            return
        try:
            with opened_directory(self._root, relpath) as directory:
                wd = self._add(directory, relpath)
                if wd is not None:
                    self._entered.add(wd)
                with os.scandir(directory) as entries:
                    listed = list(islice(entries, self._left + 1))
                self._left -= 1 + len(listed)
                if self._left < 0:
                    woken.everything = True
                    return
                for entry in listed:
                    inside = _join(relpath, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        self._cover_new(inside, woken)
                    elif entry.is_file(follow_symlinks=False):
                        (woken.relpaths if is_dump_name(entry.name) else woken.others).add(inside)
        except OSError:
            pass  # gone, no directory any more, or not ours to read, which the scan tells
        except RecursionError:
            woken.everything = True

    def tell_of_network(self) -> None:
        """Tell, once, when other machines can write to the volume without our noticing."""
        try:
            fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return  # not there yet: the scan tells
        try:
            kind = network_file_system(fd)
        finally:
            os.close(fd)
        if kind:
            self._tell_once(WatchRemote, f"{self._root} is {kind}", _SCAN_HINT)

    def _tell_once(self, kind: type[WatchImpaired], reason: str, hint: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._tell(kind(path=self._root, reason=reason, hint=hint))

    def close(self) -> None:
        """End all watches."""
        self._inotify.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _note(woken: Woken, relpath: str, event: Event) -> None:
    if not is_dump_name(event.name):
        if len(woken.others) < _MOST_OTHERS:  # the next scan finds the rest
            woken.others.add(relpath)
    elif event.mask & _FINISHED:
        woken.relpaths.add(relpath)
    else:
        woken.begun = True
        woken.created.add(relpath)


_SCAN_HINT = "a shorter WATCH_INTERVAL finds dumps sooner"


def open_watch(root: str, *, tell: Tell, skip: frozenset[str] = frozenset()) -> Watch | None:
    """Give a watch over `root`, or None, told with its hint, where the kernel gives none."""
    try:
        inotify = INotify(nonblocking=True)
    except OSError as error:
        hint = (
            "raise fs.inotify.max_user_instances on the node" if error.errno == errno.EMFILE else _SCAN_HINT
        )
        tell(WatchUnavailable(path=root, reason=error.strerror or str(error), hint=hint))
        return None
    watch = Watch(inotify, root, tell=tell, skip=skip)
    watch.tell_of_network()
    return watch


def _join(relpath: str, name: str) -> str:
    return f"{relpath}/{name}" if relpath else name
