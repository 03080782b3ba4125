"""Builds what is published: wheel, sdist, SBOM, provenance statement, checksums. `make release` runs it.

    python -m tools.release FOLDER

The same commit gives the same wheel and sdist. Nothing is uploaded or signed: docs/release.md says how.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import venv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
# What the sdist may hold at its top.
_SDIST = {
    "dumpagent",
    "scripts",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "PKG-INFO",
    "pyproject.toml",
    ".gitignore",
}


def strangers(names: Iterable[str]) -> list[str]:
    """Give the members of an sdist that do not belong there: other folders, caches, anything outside its own folder."""
    return sorted(
        name
        for name in names
        if ".." in name.split("/")
        or name.split("/")[1:2] == []
        or name.split("/")[1] not in _SDIST
        or "__pycache__" in name
    )


def statement(digests: dict[str, str], *, commit: str, repository: str) -> dict[str, Any]:
    """Give the provenance of files by their SHA-256; `repository` may be empty. Source: in-toto Statement v1, SLSA provenance v1."""
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": value}} for name, value in sorted(digests.items())],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "make release",
                "externalParameters": {"repository": repository},
                "resolvedDependencies": [
                    {"uri": f"git+{repository or 'unknown'}", "digest": {"gitCommit": commit}}
                ],
            },
            "runDetails": {"builder": {"id": f"python {sys.version.split()[0]}"}},
        },
    }


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=PROJECT, check=True, capture_output=True, text=True
    ).stdout.strip()


def _build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it: an sdist that lacks something gives no wheel."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": _git("log", "-1", "--format=%ct")}
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(PROJECT)],
        env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    with tarfile.open(sdist) as archive:
        if found := strangers(archive.getnames()):
            sys.exit(f"{sdist.name} holds what it should not: {', '.join(found[:10])}")
    return sdist, wheel


def _write_sbom(wheel: Path, target: Path) -> None:
    """Install the wheel as a user does, and list what came with it."""
    with tempfile.TemporaryDirectory() as name:
        venv.create(name, with_pip=True)
        python = f"{name}/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
        subprocess.run(
            [python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip", "setuptools"], check=True
        )
        subprocess.run([f"{name}/bin/dumpagent", "--version"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            [
                sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--of", "JSON",
                "--pyproject", str(PROJECT / "pyproject.toml"), "-o", str(target), python,
            ],
            check=True,
        )  # fmt: skip


def main() -> None:
    """Build into an empty folder; exit 1 where tracked files differ from the commit."""
    folder = Path(sys.argv[1])
    if changed := _git("status", "--porcelain", "--untracked-files=no"):
        sys.exit(f"commit first, a release is of a commit; changed:\n{changed}")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        sys.exit(f"{folder} is not empty: remove it first")
    sdist, wheel = _build(folder)
    sbom = folder / f"{wheel.name.split('-py3')[0]}.cdx.json"
    _write_sbom(wheel, sbom)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (sdist, wheel, sbom)}
    repository = _project_url()
    provenance = statement(digests, commit=_git("rev-parse", "HEAD"), repository=repository)
    (folder / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n")
    (folder / "SHA256SUMS").write_text("".join(f"{value}  {name}\n" for name, value in digests.items()))
    print("\n".join(f"{value[:16]}  {folder / name}" for name, value in digests.items()))


def _project_url() -> str:
    lines = (PROJECT / "project.env").read_text().splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith("PROJECT_URL="))


if __name__ == "__main__":
    main()
