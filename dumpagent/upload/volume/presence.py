"""Which volume is at the dump root: one that is away is not an empty one."""

from __future__ import annotations

import os
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
