"""Refuses, before anything is changed, to start where mounting cannot work, and says what to do."""

from __future__ import annotations

import os

from dumpagent.errors import BadSettings, Refused
from dumpagent.kernel.flock import lock_directory
from dumpagent.kernel.mountinfo import open_mountinfo, read_mountinfo
from dumpagent.mount.bind import open_target
from dumpagent.mount.rescue.move import opened
from dumpagent.mount.table import Mount, Table

_CAP_SYS_ADMIN = 1 << 21  # Source: <linux/capability.h>
_IMAGE = {"overlay", "fuse-overlayfs", "fuse.fuse-overlayfs"}  # what a container's own root lies on


def resolve(path: str, variable: str) -> str:
    """Give `path` with the links in its parents followed, as the mount table has it. Raises BadSettings."""
    path = "/" + path.strip("/")
    if path == "/":
        raise BadSettings(f"{variable} is '/'; accepted: a directory below it", hint=f"set {variable}")
    # Not the last part: it may be the root of a file system that hangs.
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def refuse_what_cannot_work(source: str, target: str) -> None:
    """Look at everything that needs no answer from the volume. Raises BadSettings or Refused with what to do."""
    if not _effective_capabilities() & _CAP_SYS_ADMIN:
        raise Refused(
            "mounting needs the capability CAP_SYS_ADMIN, which this process does not have",
            hint="run the container privileged (Kubernetes allows Bidirectional mount propagation only then)",
        )
    for path, variable in ((source, "MOUNT_SOURCE"), (os.path.dirname(target), "the parent of MOUNT_TARGET")):
        _refuse_what_is_no_directory(path, variable)
    if source == target or target.startswith(source + "/") or source.startswith(target + "/"):
        raise BadSettings(
            f"MOUNT_SOURCE is {source!r} and MOUNT_TARGET is {target!r}; accepted: two that do not contain each other",
            hint="mount the volume outside the node's directory, at /pv-storage",
        )
    with opened(open_target(target)):
        pass
    with opened(open_mountinfo()) as mountinfo_fd:
        content = read_mountinfo(mountinfo_fd)
    volume = Table(target, source).look(content).source
    _refuse_the_image(volume, f"MOUNT_SOURCE {source!r}", "mount the PersistentVolumeClaim there")
    parent = os.path.dirname(target)
    node = Table(parent, parent).look(content).source
    _refuse_the_image(
        node, f"MOUNT_TARGET {target!r}", "mount the node's /mnt (hostPath, Bidirectional) there"
    )


def lock_node(target: str) -> int:
    """Make this the node's one manager; give the descriptor that holds the lock. Raises Refused if there is another."""
    parent = os.path.dirname(target)
    try:
        return lock_directory(parent)
    except BlockingIOError as error:
        raise Refused(
            f"another `dumpagent mount` on this node holds the lock on {parent}",
            hint="run one per node (podAntiAffinity, or a DaemonSet); two would unmount each other's mounts without end",
        ) from error


def _effective_capabilities() -> int:
    # Source: proc_pid_status(5), CapEff
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16)
    return 0


def _refuse_what_is_no_directory(path: str, variable: str) -> None:
    try:
        with opened(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)):
            pass
    except FileNotFoundError as error:
        raise BadSettings(
            f"{variable} {path!r} does not exist", hint="mount the volume there, or correct the setting"
        ) from error
    except NotADirectoryError as error:
        raise BadSettings(f"{variable} {path!r} is not a directory", hint="correct the setting") from error


def _refuse_the_image(mount: Mount, what: str, hint: str) -> None:
    if mount.path == "/" and mount.fstype in _IMAGE:
        raise BadSettings(f"{what} lies in the container's own image: nothing is mounted there", hint=hint)
