"""Where the JVM is to write: the pod's own directory, which must be on the dump volume as the JVM itself sees it."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass

from dumpagent.errors import Refused
from dumpagent.kernel.volume import Space, space_of
from dumpagent.trigger.attach import FOLDER_ONLY

_WAIT = "let the init container `dumpagent wait` make it, and mount /mnt with HostToContainer (docs/kubernetes.md)"


@dataclass(frozen=True, slots=True)
class PodDirectory:
    """The pod's own directory below the dump root: `<namespace>_<pod>`."""

    dump_root: str
    namespace: str
    pod: str

    @property
    def name(self) -> str:
        return f"{self.namespace}_{self.pod}"

    @property
    def path(self) -> str:
        return f"{self.dump_root}/{self.name}"

    def new_dump(self) -> str:
        """Give a path that nothing has: HotSpot writes over no file."""
        return f"{self.path}/requested-{secrets.token_hex(4)}.hprof"


def open_dump_root(directory: PodDirectory) -> int:
    """Open the dump root as this container sees it, under its own user. Raises Refused."""
    try:
        return os.open(directory.dump_root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(
            f"{directory.dump_root} cannot be opened: {error.strerror}",
            hint="mount the node's /mnt there with HostToContainer, as manifests/trigger does, or set DUMP_ROOT",
        ) from error


def room_in(directory: PodDirectory, dump_root: int, root: int, uid: int) -> Space:
    """Check that the JVM, whose root directory is open on `root`, sees the volume there, and give the volume's room.

    Raises Refused. Called under the JVM's own user, level by level: a link on the way is refused, not followed.
    """
    _require_volume(dump_root, directory.dump_root)
    own = _own_directory(dump_root, directory, uid)
    try:
        seen = _walk(root, directory.path)
        try:
            if not os.path.samestat(os.fstat(seen), os.fstat(own)):
                raise Refused(
                    f"{directory.path} in the JVM's container is not the dump volume's",
                    hint=f"the dump would fall into the container itself: {_WAIT}",
                )
        finally:
            os.close(seen)
        return space_of(directory.path, lambda _path: os.fstatvfs(own))
    finally:
        os.close(own)


def _require_volume(dump_root: int, path: str) -> None:
    try:
        os.stat(".ready", dir_fd=dump_root, follow_symlinks=False)
    except FileNotFoundError:
        raise Refused(
            f"the dump volume is not mounted at {path}: no .ready",
            hint="the dump would fall onto the node's own disk; see to the volume's manager first",
        ) from None


def _own_directory(dump_root: int, directory: PodDirectory, uid: int) -> int:
    try:
        own = os.open(directory.name, FOLDER_ONLY, dir_fd=dump_root)
    except OSError as error:
        raise Refused(f"the pod has no directory {directory.path}: {error.strerror}", hint=_WAIT) from error
    if os.fstat(own).st_uid != uid:
        os.close(own)
        raise Refused(
            f"{directory.path} does not belong to the JVM's user {uid}",
            hint=f"another made it first: {_WAIT}",
        )
    return own


def _walk(root: int, path: str) -> int:
    """Open `path` below the directory open on `root`, through mounts and no link."""
    fd = os.dup(root)
    for name in path.strip("/").split("/"):
        try:
            inside = os.open(name, FOLDER_ONLY, dir_fd=fd)
        except OSError as error:
            raise Refused(
                f"the JVM's container does not show {path}: {error.strerror} at {name!r}", hint=_WAIT
            ) from error
        finally:
            os.close(fd)
        fd = inside
    return fd
