"""Finds what was written into the node's own directory while the mount was away, and has it moved into the volume.

Runs in a forked child, since the volume can hang. It keeps no state: killed at any point, the next pass finds the
original, or the same bytes in the volume already, and goes on.
"""

from __future__ import annotations

import enum
import errno
import os
import secrets
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field

from dumpagent.dumps.names import LATEST_MS, base_of_segment, stamp, with_tag
from dumpagent.kernel.lease import WriterState, release_lease, take_read_lease
from dumpagent.kernel.mount import open_tree_clone
from dumpagent.kernel.owned import STATE, own_directory
from dumpagent.mount.backend import READY
from dumpagent.mount.rescue.move import (
    DIRECTORY,
    FILE,
    Original,
    WrittenAgain,
    drop,
    holds_same,
    made,
    made_like,
    move,
    opened,
    unlink_if_there,
)

_DEEPEST = 32
_MOST_NAMES = 20
_MOST_OF_OWNER = 2000  # files and directories of one owner in one directory and pass
_STEP_BYTES = 1 << 20  # what a dump counts beside its size: two syncs take as long as a megabyte


class Outcome(enum.Enum):
    """What became of one file in this pass."""

    RESCUED = "rescued"
    WAITING = "waiting"  # somebody writes it, or that cannot be known and it was not quiet for long enough
    FAILED = "failed"
    READY_REMOVED = "ready-removed"  # a .ready in the node's own directory is a lie


@dataclass(frozen=True, slots=True)
class Rescue:
    """What became of the file `path` (relative to the target). `stamp` is its identity, for the quiet time."""

    outcome: Outcome
    path: str
    to: str = ""
    size_bytes: int = 0
    seconds: float = 0.0
    error: str = ""
    stamp: str = ""

    def as_line(self) -> dict[str, object]:
        """Give the outcome as the child says it."""
        return {**asdict(self), "outcome": self.outcome.value}

    @classmethod
    def from_line(cls, line: dict[str, object]) -> Rescue:
        """Read what `as_line` gave."""
        return cls(**{**line, "outcome": Outcome(line["outcome"])})  # type: ignore[arg-type]  # as_line's own


def hidden_directory(target: str) -> int | None:
    """Open the node's own directory that the mount at `target` hides; None where there is none. The caller closes it.

    Raises OSError.
    """
    with opened(open_tree_clone(os.path.dirname(target))) as parent:
        try:
            return os.open(os.path.basename(target), DIRECTORY, dir_fd=parent)
        except FileNotFoundError:
            return None


@dataclass(frozen=True, slots=True)
class _Unit:
    """A dump with its parts, or a directory. Each of the `steps` moves one dump, and gives its bytes."""

    owner: int
    size_bytes: int
    steps: Iterator[int]


@dataclass
class RescuePass:
    """One look through the node's own directory, open on `hidden`; the volume's directory is open on `volume`.

    `is_quiet` decides by its stamp for a file whose writer cannot be known. `node` keeps the temporaries of the nodes
    that share a volume apart.
    """

    hidden: int
    volume: int
    node: str
    tell: Callable[[Rescue], None]
    is_quiet: Callable[[str], bool]
    lease: Callable[[int], WriterState] = take_read_lease
    monotonic: Callable[[], float] = time.monotonic
    _temporaries: set[str] = field(default_factory=set)
    _closing: ExitStack = field(default_factory=ExitStack)
    _drawer_fd: int | None = None

    def run(self) -> None:
        """Rescue all that nobody writes any more. Raises OSError when nothing can be rescued at all.

        Users take turns: next is always the one of whom least was moved, so that nobody waits for another's million
        files, or his largest.
        """
        if os.path.samestat(os.fstat(self.hidden), os.fstat(self.volume)):
            return  # the target's own directory is the source
        with self._closing:
            queues: dict[int, list[_Unit]] = {}
            for unit in self._units(self.hidden, self.volume, "", ""):
                queues.setdefault(unit.owner, []).append(unit)
            for queue in queues.values():
                queue.reverse()
            moved = Counter[int]()
            while queues:
                owner = min(queues, key=lambda each: moved[each] + queues[each][-1].size_bytes)
                size_bytes = next(queues[owner][-1].steps, None)
                if size_bytes is not None:
                    moved[owner] += size_bytes + _STEP_BYTES
                    continue
                queues[owner].pop()
                if not queues[owner]:
                    del queues[owner]
            self._sweep()

    def _units(self, hidden: int, volume: int, above: str, into: str) -> Iterator[_Unit]:
        """Give what lies in the directory: each dump with its parts, each directory; of each owner so many at most."""
        dumps: dict[str, list[str]] = {}
        seen: dict[str, os.stat_result] = {}
        of_owner = Counter[int]()
        with os.scandir(hidden) as entries:
            for entry in entries:
                with self._one_failing(above + entry.name):
                    status = os.stat(entry.name, dir_fd=hidden, follow_symlinks=False)
                    if self._is_of_interest(entry.name, status, hidden, above):
                        of_owner[status.st_uid] += 1
                        if of_owner[status.st_uid] <= _MOST_OF_OWNER:
                            seen[entry.name] = status
        for uid, count in of_owner.items():
            if count > _MOST_OF_OWNER:  # for the next pass, which comes at once
                self.tell(Rescue(Outcome.WAITING, above or ".", stamp=f"more-of-{uid}"))
        for name in sorted(seen):
            if stat.S_ISDIR(seen[name].st_mode):
                yield _Unit(seen[name].st_uid, 0, self._inside(hidden, volume, name, above, into))
            else:
                dumps.setdefault(base_of_segment(name) or name, []).append(name)
        for base, names in dumps.items():
            size_bytes = sum(seen[name].st_size for name in names)
            steps = self._one_dump(hidden, volume, above, into, base, names)
            yield _Unit(seen[names[0]].st_uid, size_bytes, steps)

    def _is_of_interest(self, name: str, status: os.stat_result, hidden: int, above: str) -> bool:
        if above + name == STATE:
            return False
        if above + name == READY:
            os.unlink(name, dir_fd=hidden)
            self.tell(Rescue(Outcome.READY_REMOVED, name))
            return False
        # Links, pipes and devices are nothing that a JVM writes: they stay.
        return stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)

    def _inside(self, hidden: int, volume: int, name: str, above: str, into: str) -> Iterator[int]:
        """Rescue what lies in a directory; give the bytes of each dump."""
        path = above + name
        with self._one_failing(path), ExitStack() as closing:
            if above.count("/") >= _DEEPEST:
                raise OSError(errno.ELOOP, f"more than {_DEEPEST} directories deep")
            inside = closing.enter_context(opened(os.open(name, DIRECTORY, dir_fd=hidden)))
            if _is_empty(inside):
                return
            fd, called = made_like(name, volume, os.fstat(inside))
            there = closing.enter_context(opened(fd))
            for unit in self._units(inside, there, f"{path}/", f"{into}{called}/"):
                yield from unit.steps

    def _one_dump(
        self, hidden: int, volume: int, above: str, into: str, base: str, names: list[str]
    ) -> Iterator[int]:
        size_bytes = 0
        with self._one_failing(above + base):
            size_bytes = self._dump(hidden, volume, above, into, base, names)
        yield size_bytes

    @contextmanager
    def _one_failing(self, path: str) -> Iterator[None]:
        """One file's failure must not keep the next from being rescued."""
        try:
            yield
        except WrittenAgain:
            self.tell(Rescue(Outcome.WAITING, path))
        except OSError as error:
            # An error of ours has a text of its own and no path.
            self.tell(Rescue(Outcome.FAILED, path, error=error.strerror or str(error)))

    def _dump(self, hidden: int, volume: int, above: str, into: str, base: str, names: list[str]) -> int:
        """Move a dump and its parts, or wait for all of them: parts that go while the base is written break it.

        Gives the bytes that were moved.
        """
        with ExitStack() as closing:
            originals = []
            for name in names:
                fd = closing.enter_context(opened(os.open(name, FILE, dir_fd=hidden)))
                original = Original(hidden, name, fd, os.fstat(fd))
                if not stat.S_ISREG(original.seen.st_mode):
                    return 0  # replaced since it was listed
                if not self._finished(original):
                    size_bytes = original.seen.st_size
                    self.tell(
                        Rescue(Outcome.WAITING, above + name, size_bytes=size_bytes, stamp=original.stamp)
                    )
                    return 0
                originals.append(original)
            # A part under its plain name would make the next dump of a JVM fail, so parts never keep it.
            # The base goes last and gives the name: after a kill in between, the rest still gets the same one.
            originals.sort(key=lambda original: original.name == base)
            for original, to in _free_names(originals, volume, plain=names == [base]):
                self._bring(original, volume, to, above, into)
            return sum(original.seen.st_size for original in originals)

    def _finished(self, original: Original) -> bool:
        state = self.lease(original.fd)
        release_lease(original.fd)  # a long copy must not keep a writer waiting; `move` looks again
        return state is WriterState.NO_WRITER or (
            state is WriterState.UNKNOWN and self.is_quiet(original.stamp)
        )

    def _bring(self, original: Original, volume: int, to: str, above: str, into: str) -> None:
        began = self.monotonic()
        try:
            safe = holds_same(volume, to, original)
        except FileNotFoundError:
            safe = False
        if safe:
            drop(original, self.lease)
        else:
            temporary = f"{self.node}.{original.stamp}"
            self._temporaries.add(temporary)
            move(original, volume, to, drawer=self._drawer(), temporary=temporary, lease=self.lease)
        size_bytes, seconds = original.seen.st_size, self.monotonic() - began
        self.tell(
            Rescue(
                Outcome.RESCUED, above + original.name, to=into + to, size_bytes=size_bytes, seconds=seconds
            )
        )

    def _drawer(self) -> int:
        """Open the directory of the temporaries, made when it is first needed. Raises OSError."""
        if self._drawer_fd is None:
            with opened(made(own_directory(self.volume).name, self.volume)) as state:
                self._drawer_fd = self._closing.enter_context(opened(made("rescue", state)))
        return self._drawer_fd

    def _sweep(self) -> None:
        """Unlink what a killed pass left of files that are gone now."""
        try:
            os.stat(f"{STATE}/rescue", dir_fd=self.volume, follow_symlinks=False)
            for name in os.listdir(self._drawer()):
                if name.startswith(f"{self.node}.") and name not in self._temporaries:
                    unlink_if_there(name, self._drawer())
        except OSError:
            pass  # none was ever made; or it costs space, and the volume's own trouble is told by the write test


def _is_empty(directory: int) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is None


def _free_names(originals: list[Original], volume: int, *, plain: bool) -> list[tuple[Original, str]]:
    """Choose the names that a dump and its parts get: all free in the volume, or holding the very same bytes.

    Where somebody took them all, one that nobody could foresee.
    """
    when = stamp(min(max(0, originals[-1].seen.st_mtime_ns // 1_000_000), LATEST_MS))
    tags = [f".rescued-{when}"] + [f".rescued-{when}-{n}" for n in range(2, _MOST_NAMES)]
    if plain:
        tags = ["", *tags]

    def named(tag: str) -> list[tuple[Original, str]]:
        return [(original, with_tag(original.name, tag)) for original in originals]

    # A pass that was killed after its link used one of the first two: a dump whose parts are gone looks plain now.
    for chosen in map(named, tags[:2]):
        if all(_is_there(original, volume, to) for original, to in chosen):
            return chosen
    for chosen in map(named, tags):
        if all(_is_there(original, volume, to) is not False for original, to in chosen):
            return chosen
    return named(f".rescued-{when}-{secrets.token_hex(8)}")


def _is_there(original: Original, volume: int, name: str) -> bool | None:
    """Say whether `name` holds the original's bytes; None if the name is free."""
    try:
        return holds_same(volume, name, original)
    except FileNotFoundError:
        return None
