"""The volume at a path: which one it is, since one that is away is not an empty one, with the room on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VolumeAt:
    """The volume at a path, by the device and inode of its root directory. `mounted`: its parent is on another one."""

    device: int
    inode: int
    mounted: bool


def volume_at(root: str) -> VolumeAt | None:
    """Give the volume at `root`, None if there is none or it cannot be known."""
    try:
        found = os.stat(root)
        parent = os.stat(os.path.dirname(root) or "/")
    except OSError:
        return None
    return VolumeAt(found.st_dev, found.st_ino, found.st_dev != parent.st_dev)


def is_away(home: VolumeAt | None, now: VolumeAt | None) -> bool:
    """Say whether the volume that was mounted at `home` is gone, and nothing is mounted in its place."""
    return home is not None and home.mounted and (now is None or not now.mounted)


@dataclass(frozen=True, slots=True)
class Space:
    """The room on a file system, bytes, as a writer without privileges sees it."""

    total_bytes: int
    free_bytes: int

    @property
    def free_percent(self) -> float:
        return 100.0 * self.free_bytes / self.total_bytes if self.total_bytes else 100.0


def space_of(path: str, statvfs: Callable[[str], os.statvfs_result] = os.statvfs) -> Space:
    """Give the room on the file system of `path`, counted as df(1) does: what only root may fill is no room.

    Raises OSError. Source: statvfs(3), f_blocks, f_bfree and f_bavail.
    """
    found = statvfs(path)
    used = found.f_blocks - found.f_bfree
    return Space((used + found.f_bavail) * found.f_frsize, found.f_bavail * found.f_frsize)
