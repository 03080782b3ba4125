"""The mount table: what the target shows by it, asking no file system, with the wait for its next change."""

from __future__ import annotations

import enum
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FrameType

from dumpagent.kernel.mountinfo import CHANGED, mount_id, read_mountinfo

# Source: proc_pid_mountinfo(5): id, parent, device, root, mount point, mount options, optional fields, "-",
# file system, source, super block options.
_LINE = rb"^(\d+) (\d+) (\d+:\d+) (\S+) (%s) (\S+)((?: [^-\s]\S*)*) - (\S+) (\S*) (\S+)$"
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Shows(enum.Enum):
    """What the target shows by the mount table."""

    THE_SOURCE = "the-source"
    NOTHING = "nothing"  # the mount is lost: writes land in the node's own directory
    ANOTHER = "another"  # something else is mounted there, or our source as it was before it was replaced
    STACKED = "stacked"  # the source is on top, but not alone
    READ_ONLY = "read-only"


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of the mount table. `device` is major:minor, `root` the directory of that file system shown at `path`.

    `origin` is what whoever mounted it has named: a block device, a server's path, any word.
    """

    id: int
    parent: int
    device: str
    root: str
    path: str
    read_only: bool
    shared: bool
    fstype: str
    origin: str
    file_system_read_only: bool


@dataclass(frozen=True, slots=True)
class View:
    """What the table says: `stack` is what is mounted at the target, the visible one last; `source` where the source lies."""

    shows: Shows
    stack: tuple[Mount, ...]
    source: Mount
    source_root: str

    @property
    def identity(self) -> tuple[str, str]:
        """Give device and directory of the source: another value is another volume."""
        return self.source.device, self.source_root

    @property
    def layers(self) -> tuple[int, ...]:
        """Give the ids of what is mounted at the target: another value, and a write test was about another mount."""
        return tuple(mount.id for mount in self.stack)


class TornTable(OSError):
    """The table changed while it was read and contradicts itself: nothing is known, read again."""


def unescape(field: bytes) -> str:
    """Give the path that a field of the table stands for. Source: proc_pid_mountinfo(5): blank, tab, newline, backslash."""
    return os.fsdecode(_ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), field))


def escape(path: str) -> bytes:
    """Give `path` as the table writes it."""
    return re.sub(rb"[ \t\n\\]", lambda found: b"\\%03o" % found[0][0], os.fsencode(path))


def _ancestors(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["/"] + ["/" + "/".join(parts[: i + 1]) for i in range(len(parts))]


class Table:
    """The mount table as far as it concerns `target` and `source`, both absolute and without links in them."""

    def __init__(self, target: str, source: str) -> None:
        self.target = target
        self.source = source
        wanted = {re.escape(escape(path)) for path in _ancestors(target) + _ancestors(source)}
        # One search in C: with thousands of other mounts, splitting each line would cost ten times as much.
        self._line = re.compile(_LINE % b"|".join(sorted(wanted)), re.MULTILINE)

    def look(self, content: bytes) -> View:
        """Say what the target shows by the table `content`. Raises OSError if the table does not have the source."""
        mounts = [_mount(found) for found in self._line.findall(content)]
        on_source = _chain(mounts, self.source)
        if not on_source:
            raise TornTable(f"no mount in the table holds {self.source}")
        below = on_source[-1]
        root = below.root.rstrip("/") + self.source[len(below.path.rstrip("/")) :] or "/"
        stack = tuple(mount for mount in _chain(mounts, self.target) if mount.path == self.target)
        return View(_judge(stack, below, root), stack, below, root)

    def read(self, mountinfo_fd: int) -> View:
        """Say what the target shows now. Raises OSError when that cannot be known; "lost" is never guessed."""
        view = self.look(read_mountinfo(mountinfo_fd))
        if view.shows is Shows.NOTHING and is_mount_point(self.target):
            raise TornTable(f"the table has no mount at {self.target}, but there is one")
        return view


def mounted_at(content: bytes, path: str) -> tuple[bytes, ...]:
    """Give the lines of the table `content` for what is mounted at `path`; none if nothing is."""
    field = escape(path)
    return tuple(line for line in content.splitlines() if field in line and line.split(b" ", 5)[4] == field)


def is_mount_point(path: str) -> bool:
    """Say whether a mount hides the directory `path`, by the mount's id. Raises OSError; a missing path is none."""
    flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        here = os.open(path, flags)
    except FileNotFoundError:
        return False
    try:
        above = os.open(os.path.dirname(path), flags)
        try:
            return mount_id(here) != mount_id(above)
        finally:
            os.close(above)
    finally:
        os.close(here)


def _mount(found: tuple[bytes, ...]) -> Mount:
    number, parent, device, root, path, options, optional, fstype, origin, super_options = found
    return Mount(
        int(number),
        int(parent),
        device.decode(),
        unescape(root),
        unescape(path),
        b"ro" in options.split(b","),
        b" shared:" in optional,
        fstype.decode("utf-8", "replace"),
        unescape(origin),
        b"ro" in super_options.split(b","),
    )


def _chain(mounts: list[Mount], path: str) -> list[Mount]:
    """Give the mounts that a walk to `path` goes through, the one that holds it last; hidden ones are not among them."""
    ids = {mount.id for mount in mounts}
    chain: list[Mount] = []
    for ancestor in _ancestors(path):
        while True:
            inside = chain[-1].id if chain else None
            step = [
                mount
                for mount in mounts
                if mount.path == ancestor
                and (mount.parent == inside if inside is not None else mount.parent not in ids - {mount.id})
                and mount not in chain
            ]
            if not step:
                break
            chain.append(step[-1])
    return chain


def _judge(stack: tuple[Mount, ...], source: Mount, root: str) -> Shows:
    if not stack:
        return Shows.NOTHING
    top = stack[-1]
    if (top.device, top.root) != (source.device, root):
        return Shows.ANOTHER
    if len(stack) > 1:
        return Shows.STACKED
    if top.read_only or top.file_system_read_only:
        return Shows.READ_ONLY
    return Shows.THE_SOURCE


class Wakeups:
    """Waits for a change of the mount table, a signal, a child's word or a time, whatever comes first. `close` undoes what the constructor's `open` did."""

    def __init__(self, mountinfo_fd: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.mountinfo_fd = mountinfo_fd
        self.stopping = self.impatient = False  # after one signal, after two
        self._monotonic = monotonic
        self._deaf_until = 0.0
        self._changed = False
        self._signalled: tuple[int, int] = (-1, -1)

    def open(self) -> None:
        """Take SIGTERM, SIGINT and SIGCHLD over; as PID 1 the kernel would drop the first two otherwise."""
        self._signalled = os.pipe()
        for fd in self._signalled:
            os.set_blocking(fd, False)
        signal.set_wakeup_fd(self._signalled[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    @property
    def fds(self) -> tuple[int, ...]:
        """Give the descriptors that a forked child must not keep."""
        return (*self._signalled, self.mountinfo_fd)

    def ignore_table_for(self, seconds: float) -> None:
        """Leave the mount table's wake-ups for later: none is lost, many become one."""
        self._deaf_until = self._monotonic() + seconds

    def wait(self, until: float, fds: Iterable[int | None]) -> None:
        """Wait until the monotonic time `until`, or until something comes."""
        now = self._monotonic()
        poll = select.poll()
        poll.register(self._signalled[0], select.POLLIN)
        for fd in fds:
            if fd is not None:
                poll.register(fd, select.POLLIN)
        if now >= self._deaf_until:
            poll.register(self.mountinfo_fd, CHANGED)
        else:
            until = min(until, self._deaf_until)
        if self.stopping:
            return
        for fd, _ in poll.poll(max(0.0, until - now) * 1000):
            if fd == self.mountinfo_fd:
                self._changed = True
            elif fd == self._signalled[0]:
                os.read(fd, 4096)

    def table_changed(self) -> bool:
        """Say whether the mount table has changed since this was last asked."""
        changed, self._changed = self._changed, False
        return changed

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.impatient, self.stopping = self.stopping, True
