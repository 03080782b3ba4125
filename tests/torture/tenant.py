"""A hostile application beside those of the torture: an ordinary user who does to the volume what he can."""

from __future__ import annotations

import ctypes
import os
import random
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path

UID = 12345
PREFIX = "tenant"  # of all names that he makes in the root, so that his dumps are told apart in the bucket
_EXCHANGE = 2  # Source: renameat2(2)
_PAUSE_S = 0.02
_MOST_FILES = 300
_libc = ctypes.CDLL(None, use_errno=True)


class Tenant:
    """A process of his own for each node; `begin` starts it, `end` ends it. Start it before the process has threads."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self._root, self._seed = root, chance.randrange(1 << 30)
        self._pid = 0

    def begin(self) -> None:
        """Let him loose."""
        os.chmod(self._root, 0o1777)
        self._pid = os.fork()
        if self._pid == 0:
            try:
                _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
                os.setgroups([])
                os.setresgid(UID, UID, UID)
                os.setresuid(UID, UID, UID)
                _attack(self._root, random.Random(self._seed))
            finally:
                os._exit(0)

    def end(self) -> None:
        """End him, and take away what he left, as an administrator would."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        for path in self._root.glob(f"{PREFIX}*"):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for each in path.iterdir():
            _remove(each)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _attack(root: Path, chance: random.Random) -> None:
    while True:
        try:
            chance.choice(_ATTACKS)(root, chance)
        except OSError:
            pass  # refused, or the volume is full or away
        time.sleep(_PAUSE_S)


def _name(root: Path, chance: random.Random, end: str = ".hprof") -> Path:
    return root / f"{PREFIX}-{chance.randrange(_MOST_FILES)}{end}"


def _content(chance: random.Random, seconds: int) -> bytes:
    head = b"JAVA PROFILE 1.0.2\0" + struct.pack(">IQ", 8, seconds * 1000)
    return head + struct.pack(">BII", 0x1C, 0, 0) + struct.pack(">BII", 0x2C, 0, 0) + chance.randbytes(8)


def _old_dump(root: Path, chance: random.Random) -> None:
    path = _name(root, chance)
    path.write_bytes(_content(chance, chance.choice([0, 1, 4_000_000_000])))
    os.utime(path, (1, chance.choice([1, 4_102_444_800])))


def _hole(root: Path, chance: random.Random) -> None:
    path = _name(root, chance)
    path.write_bytes(_content(chance, 1))
    os.truncate(path, 4 << 40)


def _rewritten(root: Path, chance: random.Random) -> None:
    path = _name(root, chance)
    with path.open("r+b") as file:
        file.write(_content(chance, chance.randrange(1 << 31)))
        file.truncate(chance.randrange(100))


def _removed(root: Path, chance: random.Random) -> None:
    _remove(_name(root, chance))


def _links(root: Path, chance: random.Random) -> None:
    victims = list(root.glob("app-*/*.hprof"))
    if victims:
        victim, path = chance.choice(victims), _name(root, chance)
        if chance.random() < 0.5:
            os.link(victim, path)
        else:
            os.symlink(victim, path)


def _swapped(root: Path, chance: random.Random) -> None:
    """A directory, and a link to a victim's directory, change places again and again."""
    mine, link = root / f"{PREFIX}-d{chance.randrange(5)}", root / f"{PREFIX}-l{chance.randrange(5)}"
    if not mine.exists():
        mine.mkdir()
        (mine / "java_pid1.hprof").write_bytes(_content(chance, 7))
    if not os.path.lexists(link):
        os.symlink(root / f"app-{chance.randrange(6)}", link)
    for _ in range(20):
        _libc.renameat2(-100, os.fsencode(mine), -100, os.fsencode(link), _EXCHANGE)
        time.sleep(0.001)


def _tree(root: Path, chance: random.Random) -> None:
    """A tree that was made before is moved into a new directory, and away again."""
    tree = root / f"{PREFIX}-tree"
    if not tree.exists():
        for number in range(30):
            (tree / str(number)).mkdir(parents=True)
            (tree / str(number) / "x.hprof").touch()
    new = root / f"{PREFIX}-new{chance.randrange(9)}"
    new.mkdir()
    tree.rename(new / "tree")
    time.sleep(0.05)
    (new / "tree").rename(tree)
    new.rmdir()


def _names_of_ours(root: Path, chance: random.Random) -> None:
    for name in (".dumpagent", ".ready", ".dumpagent/receipts", ".dumpagent/lock"):
        try:
            chance.choice([os.mkdir, os.mkfifo])(root / name)
        except OSError:
            continue


def _odd_names(root: Path, chance: random.Random) -> None:
    odd = chance.choice([b"\n", b"\x1b[31m", b"\xff\xfe", "\u202e".encode(), b"x" * 230])
    fd = os.open(os.fsencode(root) + b"/" + PREFIX.encode() + odd + b".hprof", os.O_CREAT | os.O_WRONLY, 0)
    os.write(fd, _content(chance, 9))
    os.close(fd)


def _error_files(root: Path, chance: random.Random) -> None:
    _name(root, chance, "-hs_err_pid1.log").write_bytes(b"x")


_ATTACKS: list[Callable[[Path, random.Random], None]] = [
    _old_dump, _hole, _rewritten, _removed, _links, _swapped, _tree, _names_of_ours, _odd_names, _error_files,
]  # fmt: skip
