"""Looks at the mount table: is the volume mounted, and will a new mount be seen here? Asks the volume nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dumpagent.doctor.finding import Finding, Result


def mount(root: str) -> Iterator[Finding]:
    """Say what is mounted at `root`, and whether mounts made above it propagate to here.

    Source: proc_pid_mountinfo(5): 4 root, 5 mount point, 6 options, then optional fields up to "-", then the type.
    """
    root = os.path.join(os.path.realpath(os.path.dirname(root)), os.path.basename(root))
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = [line.split(" ") for line in file]
    here = [mount for mount in mounts if mount[4] == root]
    if not here:
        yield Finding(
            "mount", Result.FAILED, f"nothing is mounted at {root}: dumps lie on this container's or the node's disk",
            "see the manager's log (dump-volume-manager) for mount_lost, remount_failed and mount_set_aside; DUMP_ROOT must be where it mounts",
        )  # fmt: skip
    elif "ro" in here[-1][5].split(","):
        yield Finding(
            "mount", Result.WARNING, f"{root} is mounted read-only here",
            "CLAIM and LOCAL_KEEP need it writable: remove readOnly",
        )  # fmt: skip
    else:
        kind = here[-1][here[-1].index("-") + 1]
        yield Finding("mount", Result.OK, f"{root} shows {here[-1][3]} of a {kind}")
    yield _propagation(root, mounts)


def _propagation(root: str, mounts: list[list[str]]) -> Finding:
    above = max(
        (m for m in mounts if root.startswith(m[4].rstrip("/") + "/")), key=lambda m: len(m[4]), default=None
    )
    if above and any(word.startswith(("master:", "shared:")) for word in above[6 : above.index("-")]):
        return Finding("propagation", Result.OK, "a mount that is made anew will be seen")
    return Finding(
        "propagation", Result.WARNING, f"the mount above {root} receives no mounts: after a loss the old volume stays here",
        "mount the parent (hostPath /mnt), not DUMP_ROOT itself, with mountPropagation: HostToContainer",
    )  # fmt: skip
