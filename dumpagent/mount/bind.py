"""Makes the target show the source exactly once, by mount(2) alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from dumpagent.errors import Refused
from dumpagent.kernel.mount import bind, detach
from dumpagent.mount import hints
from dumpagent.mount.labels import label_for_containers
from dumpagent.mount.table import Shows, View

_ROUNDS = 16  # somebody else mounts faster than we unmount: stop and try again later


def settle(target: str, source: str, look: Callable[[], View]) -> View:
    """Bind, unbind and look until the target shows the source, once; give the last look.

    A mount that is right already is left alone. READ_ONLY is given back when a new bind cannot change it.
    Raises OSError from the kernel, Refused when the table does not come to rest.
    """
    for _ in range(_ROUNDS):
        view = look()
        if view.shows is Shows.THE_SOURCE:
            return view
        if view.shows is Shows.READ_ONLY and (view.source.read_only or view.source.file_system_read_only):
            return view
        if view.shows is Shows.NOTHING:
            target_fd = open_target(target)
            try:
                # What is written here while the mount is away would be refused by the node's own label.
                label_for_containers(target_fd)
                bind(source, target_fd)
            finally:
                os.close(target_fd)
        else:
            # Down to the lowest: it may be the right one, and then no write goes astray meanwhile.
            for _ in range(max(1, len(view.stack) - 1)):
                detach(target)
    raise Refused(
        f"{target} does not come to rest: somebody else mounts there",
        hint=hints.FOUGHT,
    )


def clear(target: str) -> int:
    """Detach whatever is mounted at `target`, all layers; say how many. Never waits for a file system. Raises OSError."""
    layers = 0
    while True:
        try:
            detach(target)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return layers
            raise
        layers += 1


def open_target(target: str) -> int:
    """Open the directory to mount on (O_PATH), creating it if it is missing; the caller closes it.

    Raises Refused for a link or anything else that is no directory: mount(2) would follow the link.
    """
    try:
        os.mkdir(target)
        created = True
    except FileExistsError:
        created = False
    except FileNotFoundError:
        raise  # the node's directory is gone: nothing to do about the target itself
    except OSError as error:
        raise Refused(
            f"MOUNT_TARGET {target!r} does not exist and cannot be made: {error.strerror}",
            hint="make the directory on the node, or see that the node's directory is mounted writable",
        ) from error
    try:
        fd = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            what, why = "not a directory", ""
            if _is_link(target):
                what, why = "a symbolic link", "; a mount would follow the link"
            raise Refused(
                f"MOUNT_TARGET {target!r} is {what}",
                hint=f"remove it from the node, or set MOUNT_TARGET to the directory itself{why}",
            ) from error
        raise
    if created:
        # Whatever the umask: while the mount is away, every application must be able to write its dump here.
        os.chmod(f"/proc/self/fd/{fd}", 0o1777)  # noqa: S103 - it is like /tmp, and for the same reason
    return fd


def _is_link(path: str) -> bool:
    try:
        os.readlink(path)  # unlike lstat it asks no file system that may hang
    except OSError:
        return False
    return True
