"""Folders that cost minutes to make, made once per user and shared by every checkout and parallel test worker."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def cache_root() -> Path:
    """Give the folder that all of the project's caches are in. Source: XDG Base Directory Specification."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "dumpagent"


def cached_folder(name: str, make: Callable[[Path], None]) -> Path:
    """Give the cached folder `name`; `make` fills it, in place, if nobody has yet.

    `name` must change whenever what `make` does changes: put the pin or its digest into it. A folder that was
    interrupted half-made is made anew. One process makes it while the others wait.
    """
    folder = cache_root() / name
    made = folder / ".made"
    if made.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            made.touch()
    return folder
