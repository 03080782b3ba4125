"""Wakes the agent when a file below the dump root was closed after writing or renamed into place."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from itertools import islice
from types import TracebackType

from inotify_simple import Event, INotify, flags

from dumpagent.dumps.names import is_dump_name
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
from dumpagent.upload.volume.recognise import Role
from dumpagent.upload.volume.scan import Scanner, names_in

# What is finished says CLOSE_WRITE or MOVED_TO; CREATE is there for new directories, and for dumps that begin.
_FINISHED = flags.CLOSE_WRITE | flags.MOVED_TO
_DIRECTORY_MASK = (
    _FINISHED | flags.CREATE | flags.MOVED_FROM | flags.MOVE_SELF | flags.ONLYDIR | flags.EXCL_UNLINK
)
_MOST_AT_ONCE = (
    1000  # names in a directory that was just made; more are left to the scan, which goes in steps
)
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
        self._relpaths: dict[int, str] = {}  # by watch descriptor
        self._entered: dict[int, str] = {}  # since `begin`
        self._told: set[type[WatchImpaired]] = set()

    def fileno(self) -> int:
        """Give the descriptor that becomes readable when there is something to read."""
        return int(self._inotify.fileno())

    def begin(self) -> None:
        """Begin to take note of which directories there are."""
        self._entered = {}

    def enter(self, directory: int, relpath: str) -> None:
        """Watch the directory that is open on `directory`, whatever its path is made to mean meanwhile."""
        wd = self._add(directory, relpath)
        if wd is not None:
            self._entered[wd] = relpath

    def finish(self) -> None:
        """Forget the directories that were not entered since `begin`: they are gone, or had another name."""
        for gone in set(self._relpaths) - set(self._entered):
            del self._relpaths[gone]
            try:
                self._inotify.rm_watch(gone)
            except OSError:
                pass  # EINVAL: it went with its directory

    def cover(self) -> Woken:
        """Watch every directory that is there now, in one go. What came up unseen meanwhile is in the answer."""
        known, woken = set(self._relpaths), Woken()
        self.begin()
        scanner = Scanner(self._root, skip=self._skip, enter=self.enter)
        found = scanner.step(lambda: False)
        self.finish()
        if set(self._relpaths) - known:
            woken.relpaths.update(each.dump.relpath for each in found if each.role is Role.DUMP)
        return woken

    def read(self) -> Woken:
        """Say what has happened since the last call; never waits."""
        woken = Woken()
        for event in self._inotify.read(timeout=0):
            if event.mask & flags.Q_OVERFLOW:
                self._tell_once(
                    WatchOverflowed,
                    "the kernel's queue of events was full",
                    "raise fs.inotify.max_queued_events on the node if this comes often",
                )
                woken.everything = True
            elif event.wd not in self._relpaths:
                continue
            elif event.mask & flags.IGNORED:
                del self._relpaths[event.wd]
                self._entered.pop(event.wd, None)
            elif event.mask & (flags.UNMOUNT | flags.MOVE_SELF):
                woken.everything = True
            elif event.mask & flags.ISDIR:
                if event.mask & (flags.MOVED_FROM | flags.MOVED_TO):
                    woken.everything = True  # the names of all that lies below it have changed
                elif event.mask & flags.CREATE:
                    self._cover_new(_join(self._relpaths[event.wd], event.name), woken)
            elif event.mask & (_FINISHED | flags.CREATE):
                _note(woken, _join(self._relpaths[event.wd], event.name), event)
        return woken

    def _add(self, directory: int, relpath: str) -> int | None:
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
        self._relpaths[wd] = relpath
        return wd

    def _cover_new(self, relpath: str, woken: Woken) -> None:
        """Watch a directory that was just made, with what is in it already; a large one is left to the scan."""
        if relpath in self._skip:
            return
        try:
            with opened_directory(self._root, relpath) as directory:
                wd = self._add(directory, relpath)
                if wd is not None:
                    self._entered[wd] = relpath
                with os.scandir(directory) as entries:
                    listed = list(islice(entries, _MOST_AT_ONCE + 1))
                if len(listed) > _MOST_AT_ONCE:
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
