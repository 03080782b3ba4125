"""Pins what pip installs, each file with its SHA-256: requirements/*.txt. `make lock` runs it.

    python -m tools.lock [--upgrade]

Pins that are written stay as they are, unless `--upgrade` asks for the newest. What tests, image and demo share has
one version: the later files are resolved under the pins of dev.txt. Lists without a source of their own (release.txt,
docs.txt, bench.txt, swift.txt) keep their pins and get the hashes of all their files.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from tools.project import PROJECT

FOLDER = PROJECT / "requirements"
OLDEST_PYTHON = "3.11"
_LINUX = " ; sys_platform == 'linux'"  # said of each: pyproject.toml, [tool.uv]


@dataclass(frozen=True)
class Lock:
    """A list of pins: what it is for, what it is resolved from, and the lists whose versions it shares."""

    name: str
    what: str
    sources: tuple[str, ...]
    extras: tuple[str, ...] = ()
    shares: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """Give the arguments of `uv pip compile`."""
        words = [*self.sources, "--output-file", f"requirements/{self.name}.txt"]
        for extra in self.extras:
            words += ["--extra", extra]
        for other in self.shares:
            words += ["--constraint", f"requirements/{other}.txt"]
        if self.sources == (f"requirements/{self.name}.txt",):
            return [*words, "--no-deps"]  # for the Python that runs this: such a list is used by one
        return [*words, "--universal", "--python-version", OLDEST_PYTHON]


def _listed(name: str, what: str) -> Lock:
    return Lock(name, what, (f"requirements/{name}.txt",))


_PACKAGE = "pyproject.toml"
LOCKS = (
    _listed("release", "what `make release` builds with: build, hatchling, cyclonedx-bom and what they need"),
    _listed("docs", "what `make docs-site` installs"),
    _listed("bench", "the clients that `make bench` compares with, and what draws its plots"),
    _listed("swift", "OpenStack Swift, one of the real S3 stores that tests run"),
    Lock("dev", "what tests and linters install", (_PACKAGE, "requirements/dev.in"), ("analyze", "export")),
    Lock("build", "what builds wheel, image and SBOM", ("requirements/build.in",), (), ("dev",)),
    Lock("image", "what the image installs beside the wheel", (_PACKAGE,), (), ("dev",)),
    Lock("image-analyze", "the same for `--target analyze`", (_PACKAGE,), ("analyze",), ("dev",)),
    Lock("demo", "what `make demo` installs", (_PACKAGE, "requirements/demo.in"), (), ("dev",)),
    Lock("lock", "what `make lock` resolves with", ("requirements/lock.in",)),
    Lock("audit", "what `make audit` installs", ("requirements/audit.in",)),
)


def write(lock: Lock, *, upgrade: bool) -> None:
    """Resolve a list for every Python and CPU that the package supports, and write it. Raises CalledProcessError."""
    environment = dict(os.environ)
    if index := environment.get("PIP_INDEX_URL"):
        environment.setdefault("UV_DEFAULT_INDEX", index)
    if certificates := environment.get("PIP_CERT"):
        environment.setdefault("SSL_CERT_FILE", certificates)
    subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--generate-hashes", "--no-header"),
            *("--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
            *(["--upgrade"] if upgrade else []),
            *lock.words(),
        ],
        cwd=PROJECT, env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    path = FOLDER / f"{lock.name}.txt"
    pins = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pins = [line.replace(_LINUX, "").replace(f" and{_LINUX[2:]}", "") for line in pins]
    head = f"# Written by `make lock`; do not edit. {lock.what[0].upper()}{lock.what[1:]}."
    path.write_text("\n".join([head, *pins]) + "\n")


def main() -> None:
    """Write every list."""
    upgrade = "--upgrade" in sys.argv[1:]
    for lock in LOCKS:
        write(lock, upgrade=upgrade)
        count = sum(not line.startswith(("#", " ")) for line in (FOLDER / f"{lock.name}.txt").open())
        print(f"requirements/{lock.name}.txt: {count} packages")


if __name__ == "__main__":
    main()
