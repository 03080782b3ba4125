"""The two versions that an attack is tried on: this one, and 0.1.0, on which it has to succeed."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.harness.manifests import PROJECT

_FIRST_COMMIT = "8b7a638"  # version 0.1.0


@dataclass(frozen=True)
class Version:
    """A version's package and manifests, below `folder`."""

    name: str
    folder: Path

    @property
    def is_ours(self) -> bool:
        return self.folder == PROJECT

    def __str__(self) -> str:
        return self.name


OURS = Version("this version", PROJECT)


def first_version(cache: Path) -> Version:
    """Take version 0.1.0 out of the repository's own history. Raises RuntimeError where the history lacks it."""
    folder = cache / _FIRST_COMMIT
    if not (folder / "whole").exists():
        folder.mkdir(parents=True, exist_ok=True)
        words = ["git", "-C", str(PROJECT), "archive", _FIRST_COMMIT, "dumpagent", "manifests"]
        archived = subprocess.run(words, capture_output=True, check=False)
        if archived.returncode:
            raise RuntimeError(
                f"the controls need commit {_FIRST_COMMIT} (version 0.1.0); fetch the whole history: "
                f"git fetch --unshallow\n{archived.stderr.decode()}"
            )
        subprocess.run(["tar", "-x", "-C", str(folder)], input=archived.stdout, check=True)
        (folder / "whole").touch()
    return Version("0.1.0", folder)
