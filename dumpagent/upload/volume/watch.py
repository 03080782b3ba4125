"""Wakes the agent when a file below the dump root was closed after writing or renamed into place."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from types import TracebackType

from inotify_simple import INotify, flags

from dumpagent.dumps.names import is_dump_name
from dumpagent.kernel.lease import network_file_system
from dumpagent.observe.events import Tell
from dumpagent.observe.events.volume import (
    WatchImpaired,
    WatchLimited,
    WatchOverflowed,
    WatchRemote,
    WatchUnavailable,
)

# What is finished says CLOSE_WRITE or MOVED_TO; CREATE is there for new directories, and for dumps that begin.
_FINISHED = flags.CLOSE_WRITE | flags.MOVED_TO
_DIRECTORY_MASK = (
    _FINISHED | flags.CREATE | flags.MOVED_FROM | flags.MOVE_SELF | flags.ONLYDIR | flags.EXCL_UNLINK
)


@dataclass(slots=True)
class Woken:
    """What may be finished: dump names relative to the root, or anything at all (`everything`); `begun`: a dump is."""

    relpaths: set[str] = field(default_factory=set)
    everything: bool = False
    begun: bool = False


class Watch:
    """Watches over every directory below `root`, also those made later; `skip` are paths that are left out.

    What it cannot watch it tells once, with a hint; then the scan alone finds what lies there. After every full scan
    call `cover` again: the volume may have been mounted anew.
    """

    def __init__(
        self, inotify: INotify, root: str, *, tell: Tell, skip: frozenset[str] = frozenset()
    ) -> None:
        self._inotify, self._root, self._tell, self._skip = inotify, root, tell, skip
        self._relpaths: dict[int, str] = {}  # by watch descriptor
        self._told: set[type[WatchImpaired]] = set()

    def fileno(self) -> int:
        """Give the descriptor that becomes readable when there is something to read."""
        return int(self._inotify.fileno())

    def cover(self) -> Woken:
        """Watch every directory that is there now. What came up unseen meanwhile is in the answer."""
        watched, woken = set(self._relpaths), Woken()
        self._relpaths = {}
        self._cover("", woken)
        for gone in watched - set(self._relpaths):
            try:
                self._inotify.rm_watch(gone)
            except OSError:
                pass  # EINVAL: it went with its directory
        if any(wd not in watched for wd in self._relpaths):
            return woken
        return Woken()

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
            elif event.mask & (flags.UNMOUNT | flags.MOVE_SELF):
                woken.everything = True
            elif event.mask & flags.ISDIR:
                if event.mask & (flags.MOVED_FROM | flags.MOVED_TO):
                    woken.everything = True  # the names of all that lies below it have changed
                elif event.mask & flags.CREATE:
                    self._cover(_join(self._relpaths[event.wd], event.name), woken)
            elif event.mask & _FINISHED and is_dump_name(event.name):
                woken.relpaths.add(_join(self._relpaths[event.wd], event.name))
            elif event.mask & flags.CREATE and is_dump_name(event.name):
                woken.begun = True
        if woken.everything:
            self.cover()
        return woken

    def _cover(self, start: str, woken: Woken) -> None:
        """Watch `start` and what lies below it; first the watch, then the look inside, so that nothing is missed."""
        ahead = [start]
        while ahead:
            relpath = ahead.pop()
            path = f"{self._root}/{relpath}" if relpath else self._root
            if path in self._skip:
                continue
            try:
                mask = _DIRECTORY_MASK | (flags.DONT_FOLLOW if relpath else 0)
                self._relpaths[self._inotify.add_watch(path, mask)] = relpath
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    self._tell_once(
                        WatchLimited,
                        f"no more watches at {path}",
                        "raise fs.inotify.max_user_watches on the node",
                    )
                elif error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES):
                    continue  # gone, no directory any more, or not ours to read, which the scan tells
                else:
                    self._tell_once(WatchUnavailable, f"{path}: {error.strerror}", _SCAN_HINT)
            self._look_inside(path, relpath, ahead, woken)

    def _look_inside(self, path: str, relpath: str, ahead: list[str], woken: Woken) -> None:
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        ahead.append(_join(relpath, entry.name))
                    elif is_dump_name(entry.name):
                        woken.relpaths.add(_join(relpath, entry.name))
        except OSError:
            pass  # the scan tells what cannot be read

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
