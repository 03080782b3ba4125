"""Proves that a write through the target reaches the volume. Runs in a forked child: every line here can hang."""

from __future__ import annotations

import enum
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace

from dumpagent.kernel.beneath import open_root
from dumpagent.kernel.flock import is_locked
from dumpagent.kernel.owned import BUSY, STATE, is_ours, move_aside, own_directory

READY = ".ready"
_TEST_BYTES = 4096  # on a full disk an empty file can still be made
# Withdrawing .ready frees a block: without asking for more than that, a full volume would be well at every second test.
_MORE_WITHOUT_READY_BYTES = 16384
# Source: Kubernetes mount-utils, IsCorruptedMnt; the last four are what dead block and network devices answer too.
_DEAD = {
    errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.EHOSTDOWN, errno.EWOULDBLOCK, errno.ENODEV,
    errno.ENXIO, errno.ETIMEDOUT, errno.ESHUTDOWN, errno.EHOSTUNREACH,
}  # fmt: skip


class Backend(enum.Enum):
    """What became of the last write test."""

    WRITABLE = "writable"
    FULL = "full"
    READ_ONLY = "read-only"
    REFUSING = "refusing"  # the file system works, but we may not write
    DEAD = "dead"
    MISSING = "missing"  # the source is not a directory
    STALE_TARGET = "stale-target"  # the source works, the target is dead or shows something else
    HUNG = "hung"  # no answer yet; said by the keeper, never by the child
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Proof:
    """The outcome of one write test. `through_target`: the write went through the target and was seen in the source.

    `moved_aside` are names of ours that somebody else had taken, as they are called now, with their owner's uid.
    `mapped_uid` is the owner of what we make on the volume where that is another user than ours.
    """

    backend: Backend
    step: str
    error: str = ""
    through_target: bool = False
    moved_aside: tuple[tuple[str, int], ...] = ()
    mapped_uid: int | None = None

    @property
    def ready(self) -> bool:
        """Say whether writes through the target are proven to reach the volume."""
        return self.through_target and self.backend is Backend.WRITABLE

    def as_line(self) -> dict[str, object]:
        """Give the proof as the child says it."""
        return {**asdict(self), "backend": self.backend.value}

    @classmethod
    def from_line(cls, line: dict[str, object]) -> Proof:
        """Read what `as_line` gave."""
        return cls(
            Backend(line["backend"]),
            str(line["step"]),
            str(line["error"]),
            bool(line["through_target"]),
            tuple((str(name), int(uid)) for name, uid in line.get("moved_aside", ())),  # type: ignore[attr-defined]
            uid if isinstance(uid := line.get("mapped_uid"), int) else None,
        )


class _Failed(Exception):
    def __init__(self, backend: Backend, step: str, error: str) -> None:
        super().__init__(error)
        self.proof = Proof(backend, step, error)


def prove(source: str, target: str | None, node: str) -> Proof:
    """Write 4 KiB, sync and delete it through `target` (None: through the source), and put or withdraw `.ready`.

    The test's file lies in the directory of ours, which is made first; it is this node's own, since a volume may be
    mounted on many nodes. Raises no OSError.
    """
    moved: tuple[tuple[str, int], ...] = ()
    try:
        with _step("look at the source", _of_source):
            want = os.stat(source)
        if not stat.S_ISDIR(want.st_mode):
            raise _Failed(Backend.MISSING, "look at the source", "it is not a directory")
        with _step("make the directory of ours", _of_write), _opened(source) as volume:
            owned = own_directory(volume)
            moved = owned.moved_aside
        _write_test(source, target, f"{owned.name}/write-test.{node}")
        if target is not None:
            with _step("open the volume to every user (mode 1777)", _of_write):
                open_to_every_user(source)
            with _step("put .ready", _of_write):
                moved += put_ready(source, owned.uid)
    except _Failed as failed:
        # Someone who waits for .ready must not find it while dumps are refused.
        withdraw_ready(source)
        return replace(failed.proof, moved_aside=moved)
    return Proof(
        Backend.WRITABLE,
        "all",
        through_target=target is not None,
        moved_aside=moved,
        mapped_uid=owned.mapped_uid,
    )


def open_to_every_user(source: str) -> None:
    """Let every user make files in the volume's top directory and delete only their own, as in /tmp. Raises OSError.

    Where the mode cannot be changed (a server that maps root to another user), a directory that others may write to is
    taken as it is.
    """
    mode = os.stat(source).st_mode
    if mode & 0o1777 == 0o1777:
        return
    try:
        os.chmod(source, 0o1777)  # noqa: S103 - applications write under their own users
    except OSError:
        if mode & 0o003 != 0o003:
            raise


def put_ready(source: str, uid: int) -> tuple[tuple[str, int], ...]:
    """Make the volume hold `.ready` with the text `ready`, owned by `uid`, which is ours.

    What has the name and is not ours is moved aside, and given with its owner. Raises OSError.
    """
    moved: tuple[tuple[str, int], ...] = ()
    with _opened(source) as volume:
        if is_ours(volume, READY, uid) is False:
            owner = os.stat(READY, dir_fd=volume, follow_symlinks=False).st_uid
            moved = ((move_aside(volume, READY), owner),)
        elif is_ours(volume, READY, uid) and _says_ready(volume):
            return moved
    # Under a name that nobody can foresee: anybody may write beside it.
    _replace_from(source, READY, b"ready")
    return moved


def _says_ready(volume: int) -> bool:
    fd = os.open(READY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=volume)
    try:
        return os.read(fd, 16).strip() == b"ready"
    finally:
        os.close(fd)


def _replace_from(source: str, name: str, content: bytes) -> None:
    with _opened(source) as volume:
        temporary = f"{name}.{secrets.token_hex(8)}.tmp"
        fd = os.open(
            temporary,
            os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
            0o644,
            dir_fd=volume,
        )
        try:
            try:
                os.write(fd, content)
                os.fchmod(fd, 0o644)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=volume, dst_dir_fd=volume)
        except OSError:
            _unlink_if_there(f"{source}/{temporary}")
            raise
        os.fsync(volume)


@contextmanager
def _opened(source: str) -> Iterator[int]:
    fd = open_root(source)
    try:
        yield fd
    finally:
        os.close(fd)


def withdraw_ready(source: str) -> bool:
    """Remove `.ready` from the volume; say whether it is gone now. Raises no OSError: a dead volume keeps what it has."""
    try:
        os.unlink(f"{source}/{READY}")
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        try:
            with _opened(source) as volume:
                move_aside(volume, READY)
        except OSError:
            return False
    except OSError:
        return False
    return True


def _write_test(source: str, target: str | None, name: str) -> None:
    with _step("look at the source", _of_source):
        want = os.stat(source)
    if not stat.S_ISDIR(want.st_mode):
        raise _Failed(Backend.MISSING, "look at the source", "it is not a directory")
    if target is not None:
        with _step("look at the target", lambda _: Backend.STALE_TARGET):
            have = os.stat(target)
        if (have.st_dev, have.st_ino) != (want.st_dev, want.st_ino):
            raise _Failed(Backend.STALE_TARGET, "compare target and source", "they are different directories")
    path = f"{target or source}/{name}"
    try:
        with _step("write", _of_write):
            _unlink_if_there(path)  # left by one that was killed
            stands = os.access(f"{source}/{READY}", os.F_OK, effective_ids=True)
            size_bytes = _TEST_BYTES + (0 if stands else _MORE_WITHOUT_READY_BYTES)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                view = memoryview(bytes(size_bytes))
                while view:
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
                written = os.fstat(fd)
            finally:
                os.close(fd)
        with _step("find the write in the source", lambda _: Backend.STALE_TARGET):
            found = os.stat(f"{source}/{name}", follow_symlinks=False)
            if found.st_ino != written.st_ino:
                raise FileNotFoundError(errno.ENOENT, "another file has the name", name)
    finally:
        try:
            _unlink_if_there(path)
        except OSError:
            pass  # the test itself told what is wrong


def _unlink_if_there(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


@contextmanager
def _step(step: str, judge: Callable[[OSError], Backend]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _Failed(judge(error), step, os.strerror(error.errno or 0)) from error


def _of_source(error: OSError) -> Backend:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Backend.MISSING
    if error.errno in _DEAD | {errno.EACCES}:
        return Backend.DEAD
    return Backend.UNKNOWN


def _of_write(error: OSError) -> Backend:
    if error.errno == errno.EROFS:
        return Backend.READ_ONLY
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Backend.FULL
    if error.errno in (errno.EACCES, errno.EPERM):
        return Backend.REFUSING
    if error.errno in _DEAD:
        return Backend.DEAD
    return Backend.UNKNOWN


def is_busy(volume: str) -> bool:
    """Say whether an uploader on this volume has dumps that are not stored yet. Raises OSError where that is not known."""
    return is_locked(f"{volume}/{STATE}/{BUSY}")
