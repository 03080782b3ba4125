"""Applications that write dumps as JVMs do, and the truth about what they finished."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.hprof import Maker

MIB = 1 << 20
APPLICATIONS = 6
# Most are small, or a thousand lives would fill the store; parts are 5 MiB.
_SIZES = [200, 4000, 4000, 100_000, 100_000, 100_000, 3 * MIB, 6 * MIB, 11 * MIB]


@dataclass
class Truth:
    """What was ever finished on a volume: by SHA-256, under which path and how often (empty ones are alike)."""

    paths: dict[str, str] = field(default_factory=dict)
    times: Counter[str] = field(default_factory=Counter)
    truncated: int = 0

    def finished(self, path: Path, root: Path) -> None:
        """Take note of a dump, before anybody may rename it."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        self.paths[digest] = path.relative_to(root).as_posix()
        self.times[digest] += 1


class Jvms:
    """Those of one node: O_EXCL, nothing over an existing file, sometimes killed half-way."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.root, self.chance, self.truth = root, chance, Truth()
        self.lost_to_a_taken_name = 0
        self._growing: tuple[Path, int, bytes] | None = None

    def act(self) -> None:
        """Do one thing: go on with a dump in the making, or begin one."""
        if self._growing:
            self._finish()
            return
        path = self.root / f"app-{self.chance.randrange(APPLICATIONS)}" / "java_pid1.hprof"
        path.parent.mkdir(exist_ok=True)
        content = self._content()
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            self.lost_to_a_taken_name += 1
            return
        half = self.chance.randrange(len(content))
        if not self._write(fd, path, content[:half]):
            return
        if self.chance.random() < 0.1:  # killed
            self.truth.truncated += 1
            self.truth.finished(path, self.root)
            os.close(fd)
            return
        self._growing = (path, fd, content[half:])
        if self.chance.random() < 0.7:
            self._finish()

    def end(self) -> None:
        """Finish what is in the making."""
        if self._growing:
            self._finish()

    def last_words(self) -> None:
        """Write one more dump under a name that nobody has."""
        path = self.root / "last" / f"{self.chance.randbytes(8).hex()}.hprof"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(self._content())
        self.truth.finished(path, self.root)

    def _finish(self) -> None:
        assert self._growing
        path, fd, rest = self._growing
        self._growing = None
        if self._write(fd, path, rest):
            os.fsync(fd)
            # Its digest must be known before the agent may rename it: nobody else does while a writer has it open.
            self.truth.finished(path, self.root)
            os.close(fd)

    def _write(self, fd: int, path: Path, content: bytes) -> bool:
        """Write all; on a full disk close what there is, as a JVM does, and say no."""
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(fd, view) :]
        except OSError:
            self.truth.truncated += 1
            self.truth.finished(path, self.root)
            os.close(fd)
            return False
        return True

    def _content(self) -> bytes:
        """Give a whole dump with bytes that no other has; two of one second are common."""
        size = self.chance.choice(_SIZES)
        make = Maker(time_ms=int(time.time()) * 1000)
        unique = make.string(99, self.chance.randbytes(40).hex())
        head, whole = make.head(), make.dump(segments=1, segment_bytes=size)
        return head + unique + whole[len(head) :]
