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
        """Rescue all that nobody writes any more. Raises OSError when nothing can be rescued at all."""
        if os.path.samestat(os.fstat(self.hidden), os.fstat(self.volume)):
            return  # the target's own directory is the source
        with self._closing:
            self._directory(self.hidden, self.volume, "", "")
            self._sweep()

    def _directory(self, hidden: int, volume: int, above: str, into: str) -> None:
        dumps: dict[str, list[str]] = {}
        for name in sorted(os.listdir(hidden)):
            with self._one_failing(above + name):
                mode = os.stat(name, dir_fd=hidden, follow_symlinks=False).st_mode
                if above + name == STATE:
                    continue
                if above + name == READY:
                    os.unlink(name, dir_fd=hidden)
                    self.tell(Rescue(Outcome.READY_REMOVED, name))
                elif stat.S_ISDIR(mode):
                    self._enter(hidden, volume, name, above, into)
                elif stat.S_ISREG(mode):
                    dumps.setdefault(base_of_segment(name) or name, []).append(name)
                # Links, pipes and devices are nothing that a JVM writes: they stay.
        for base, names in dumps.items():
            with self._one_failing(above + base):
                self._dump(hidden, volume, above, into, base, names)

    def _enter(self, hidden: int, volume: int, name: str, above: str, into: str) -> None:
        if above.count("/") >= _DEEPEST:
            raise OSError(errno.ELOOP, f"more than {_DEEPEST} directories deep")
        with opened(os.open(name, DIRECTORY, dir_fd=hidden)) as inside:
            if os.listdir(inside):
                fd, called = made_like(name, volume, os.fstat(inside))
                with opened(fd) as there:
                    self._directory(inside, there, f"{above}{name}/", f"{into}{called}/")

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

    def _dump(self, hidden: int, volume: int, above: str, into: str, base: str, names: list[str]) -> None:
        """Move a dump and its parts, or wait for all of them: parts that go while the base is written break it."""
        with ExitStack() as closing:
            originals = []
            for name in names:
                fd = closing.enter_context(opened(os.open(name, FILE, dir_fd=hidden)))
                original = Original(hidden, name, fd, os.fstat(fd))
                if not stat.S_ISREG(original.seen.st_mode):
                    return  # replaced since it was listed
                if not self._finished(original):
                    size_bytes = original.seen.st_size
                    self.tell(
                        Rescue(Outcome.WAITING, above + name, size_bytes=size_bytes, stamp=original.stamp)
                    )
                    return
                originals.append(original)
            # A part under its plain name would make the next dump of a JVM fail, so parts never keep it.
            # The base goes last and gives the name: after a kill in between, the rest still gets the same one.
            originals.sort(key=lambda original: original.name == base)
            for original, to in _free_names(originals, volume, plain=names == [base]):
                self._bring(original, volume, to, above, into)

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
