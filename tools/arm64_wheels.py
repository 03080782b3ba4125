"""Shows that every dependency has a wheel for arm64, by asking the package index for it: `make arm64`.

Fails with pip's own words where one has none: the image would then need a compiler.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1]
_PYTHON = "3.12"  # the image's
_PLATFORMS = (
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux2014_aarch64",
    "manylinux_2_17_aarch64",
)


def requirements(pyproject: str) -> list[str]:
    """Give what the package and its extras need."""
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {}).values()
    return [*project["dependencies"], *(need for extra in extras for need in extra)]


def main() -> None:
    """Fetch the wheels into a temporary directory and print their names; exit 1 where one is missing."""
    wanted = requirements((PROJECT / "pyproject.toml").read_text())
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, "--only-binary=:all:",
                "--implementation", "cp", "--python-version", _PYTHON,
                *(word for platform in _PLATFORMS for word in ("--platform", platform)), *wanted,
            ],
            check=False,
        )  # fmt: skip
        wheels = sorted(path.name for path in Path(folder).iterdir())
    print("\n".join(wheels))
    if done.returncode:
        sys.exit("not every dependency has a wheel for arm64: see above")
    compiled = sum("aarch64" in name for name in wheels)
    print(f"\n{len(wheels)} wheels for Python {_PYTHON} on arm64, {compiled} of them compiled")


if __name__ == "__main__":
    main()
