"""Asks the registries for the digests of the base images, and writes them down. `make base-digests` runs it.

    python -m tools.base_images [FOLDER]

The names are those of the Containerfiles' ARG lines. skopeo asks, so logins, mirrors and CAs are those that the machine
has set up for podman and skopeo. Nothing is written where one of the names gets no answer.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from tools.project import PROJECT

CONTAINERFILES = ("Containerfile", "memory-leak-app/Containerfile")
LIST = "requirements/base-images.txt"
_HEAD = "# Written by `make base-digests`: each base image of the Containerfiles, and the digest that its tag had.\n"


def names(containerfiles: Iterable[Path]) -> list[str]:
    """Give the base images that these Containerfiles name by a tag, each once."""
    found = (
        re.findall(r"^ARG [A-Z_]*BASE=(\S+)$", path.read_text(), re.MULTILINE) for path in containerfiles
    )
    return sorted({name for each in found for name in each if "@" not in name})


def digest_of(name: str) -> str:
    """Give the digest of what a registry has under this name, of all CPUs together. Raises RuntimeError with skopeo's words.

    It is the SHA-256 of the manifest's bytes. Source: OCI distribution spec, "Pulling manifests".
    """
    try:
        done = subprocess.run(
            ["skopeo", "inspect", "--raw", f"docker://{name}"], capture_output=True, check=False
        )
    except FileNotFoundError:
        raise RuntimeError(
            "skopeo is not installed: install the package skopeo, or write the line by hand"
        ) from None
    if done.returncode or not done.stdout:
        raise RuntimeError(f"{name}: {done.stderr.decode(errors='replace').strip() or 'an empty manifest'}")
    return f"sha256:{hashlib.sha256(done.stdout).hexdigest()}"


def write(project: Path, ask: Callable[[str], str] = digest_of) -> str:
    """Ask for every base image, then write the list; give its text. Raises RuntimeError, and leaves the list alone then."""
    lines = [f"{name} {ask(name)}\n" for name in names(project / path for path in CONTAINERFILES)]
    text = _HEAD + "".join(lines)
    target = project / LIST
    temporary = target.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(target)
    return text


def main() -> None:
    """Write the list of this project, or of another checkout."""
    project = Path(sys.argv[1]) if sys.argv[1:] else PROJECT
    try:
        print(write(project), end="")
    except RuntimeError as error:
        sys.exit(f"base-digests: {error}\n  {LIST} is as it was")


if __name__ == "__main__":
    main()
