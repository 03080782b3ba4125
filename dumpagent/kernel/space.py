"""The room on a file system."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass


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
