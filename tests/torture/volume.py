"""A node's volume, which can be taken away, replaced and brought back while agents and applications hold it open."""

from __future__ import annotations

import subprocess
from pathlib import Path

_BYTES = 512 << 20
_INODES = 4000  # few enough that they can be used up


class Volume:
    """A tmpfs of its own at `root`, in the torture's private mount namespace; all of it goes with that."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._kept = root.with_name(f"{root.name}.kept")
        self._away = False
        for folder in (root, self._kept):
            folder.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={_BYTES},nr_inodes={_INODES}", "torture", str(root))
        _run("mount", "--bind", str(root), str(self._kept))

    def take_away(self, *, other: bool) -> None:
        """Unmount it, whoever works on it; `other`: an empty volume comes in its place."""
        self._away = True
        _run("umount", "--lazy", str(self.root))
        if other:
            _run("mount", "-t", "tmpfs", "-o", "size=16m", "another", str(self.root))

    def bring_back(self) -> None:
        """Mount it again, if it is away."""
        if self._away:
            self._away = False
            subprocess.run(["umount", "--lazy", str(self.root)], check=False, capture_output=True)
            _run("mount", "--bind", str(self._kept), str(self.root))

    def close(self) -> None:
        """Unmount all."""
        for path in (self.root, self._kept):
            subprocess.run(["umount", "--lazy", str(path)], check=False, capture_output=True)


def _run(*words: str) -> None:
    subprocess.run(words, check=True)
