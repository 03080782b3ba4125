"""Builds the two images from their Containerfiles, on base images that are made here: no registry is asked for anything.

The bases are Debian root filesystems under the names that the Containerfiles give in their ARG lines. Needs root,
buildah and runc from Debian 12, and Debian's archive; crun is not needed, since RUN steps are run in a chroot.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.e2e.kubelet import SCRIPTS
from tests.harness.cache import cache_root, cached_folder
from tests.harness.manifests import PROJECT

STORE = cache_root() / "images"
_MOST_IMAGES = 25
_VERSION = "1"  # raise it when a base must be made anew
# The machine's Python makes the wheels, so it must be of the version that Debian's images have.
_PYTHON = (3, 11)
_JRE = ("openjdk-17-jre-headless",)
_JDK = (*_JRE, "openjdk-17-jdk-headless")
_PATH = "/opt/app-root/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CommandFailed(RuntimeError):
    """A program failed with exit code `code`; `said` is what it printed."""

    def __init__(self, argv: Sequence[object], code: int, said: str) -> None:
        super().__init__(f"{' '.join(map(str, argv))}: exit {code}\n{said[-4000:]}")
        self.code, self.said = code, said


def run(argv: Sequence[str | Path], **options: object) -> str:
    """Give what a program printed. Raises CommandFailed."""
    done = subprocess.run(
        argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options
    )  # type: ignore[call-overload]
    if done.returncode:
        raise CommandFailed(argv, done.returncode, done.stdout + done.stderr)
    return str(done.stdout)


def buildah(*words: str | Path) -> str:
    """Run buildah on a store of our own; the machine's is left alone."""
    return run(
        [
            "buildah",
            "--root",
            STORE / "root",
            "--runroot",
            STORE / "run",
            "--storage-driver",
            "overlay",
            *words,
        ]
    )


def build(folder: Path, dumpagent: str, app: str) -> list[Path]:
    """Build the images under these names; give the archives, in `folder`, that a container runtime loads."""
    folder.mkdir(parents=True, exist_ok=True)
    with locked():
        if len(buildah("images", "--quiet", "--all").split()) > _MOST_IMAGES:
            with suppress(CommandFailed):  # a build that was killed left a container, whose image cannot go
                buildah("rmi", "--prune")  # what earlier states of the code left
        build_dumpagent(dumpagent)
        build_app(app)
        archives = []
        for number, name in enumerate((dumpagent, app)):
            archive = folder / f"image-{number}.tar"
            archive.unlink(missing_ok=True)
            buildah("push", "--quiet", name, f"docker-archive:{archive}:{name}")
            archives.append(archive)
        return archives


def build_dumpagent(name: str) -> str:
    """Build the agent's image as `name`; give the name of its base."""
    containerfile = PROJECT / "Containerfile"
    base = _argument(containerfile, "BASE")
    _base(base, [])
    buildah(
        *("build", "--quiet", "--isolation", "chroot", "--pull-never", "--layers", "--tag", name),
        *("--build-arg", "PIP_NO_INDEX=1", "--build-arg", "PIP_FIND_LINKS=/wheels"),
        *("--volume", f"{_wheels()}:/wheels:ro", "--file", containerfile, PROJECT),
    )
    return base


def build_app(name: str) -> None:
    """Build the demo application's image as `name`."""
    containerfile = PROJECT / "memory-leak-app" / "Containerfile"
    _base(_argument(containerfile, "BASE"), _JRE)
    _base(_argument(containerfile, "BUILD_BASE"), _JDK)
    buildah(
        *("build", "--quiet", "--isolation", "chroot", "--pull-never", "--layers", "--tag", name),
        *("--file", containerfile, containerfile.parent),
    )


@contextmanager
def container(image: str) -> Iterator[str]:
    """Give a container of `image` to run programs in; it is removed at the end."""
    name = buildah("from", "--quiet", "--pull-never", image).strip()
    try:
        yield name
    finally:
        buildah("rm", name)


@contextmanager
def mounted(image: str) -> Iterator[Path]:
    """Give the root directory of a container of `image`."""
    with container(image) as name:
        try:
            yield Path(buildah("mount", name).strip())
        finally:
            buildah("umount", name)


def size_bytes(image: str) -> int:
    """Give what the image's files take up, all layers together."""
    with mounted(image) as root:
        return int(run(["du", "--summarize", "--bytes", "--one-file-system", root]).split()[0])


def config(image: str) -> dict[str, Any]:
    """Give what the image says of itself: Entrypoint, Env, User, Labels ... Source: OCI image spec, config."""
    found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    return found


def run_read_only(image: str, user: str, words: Sequence[str], environ: dict[str, str]) -> tuple[int, str]:
    """Give exit code and output of the image's entrypoint with `words`, as `user` (uid:gid) on a read-only root.

    As a kubelet starts it: the image's own variables and working directory, nothing of this machine's.
    """
    told = config(image)
    variables = [*told["Env"], *(f"{name}={value}" for name, value in environ.items())]
    with mounted(image) as root:
        script = (
            'mount --bind "$1" "$1"; mount --bind /proc "$1/proc"; mount --rbind /dev "$1/dev"\n'
            'mount -o remount,bind,ro "$1"; root=$1 user=$2; shift 2\n'
            'exec chroot --userspec="$user" "$root" /usr/bin/env --ignore-environment "$@"'
        )
        command = [*variables, *told["Entrypoint"], *words]
        try:
            return 0, run(["unshare", "--mount", "sh", "-euc", script, "sh", root, user, *command])
        except CommandFailed as failed:
            return failed.code, failed.said


@contextmanager
def locked() -> Iterator[None]:
    """Keep others from building meanwhile."""
    STORE.mkdir(parents=True, exist_ok=True)
    with open(STORE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _argument(containerfile: Path, name: str) -> str:
    found = re.search(rf"^ARG {name}=(\S+)$", containerfile.read_text(), re.MULTILINE)
    assert found, f"{containerfile} has no ARG {name}"
    return found[1]


def _base(name: str, packages: Sequence[str]) -> None:
    """Make the base image `name`: Debian with python3, laid out as UBI's Python image, and these Debian packages."""
    wanted = f"{_VERSION} {' '.join(packages)}"
    have = buildah(
        "images", "--json", "--filter", f"label=dumpagent.test.base={wanted}", "--noheading", "--quiet"
    )
    if name in have:
        return
    with tempfile.TemporaryDirectory(dir=STORE) as temporary:
        root = Path(temporary) / "root"
        run([SCRIPTS / "rootfs.sh", root])
        _python_as_in_ubi(root)
        for package in packages:
            _unpack(package, root, Path(temporary))
        made = buildah("from", "--quiet", "scratch").strip()
        try:
            buildah("copy", "--quiet", made, root)
            buildah(
                *(
                    "config",
                    "--env",
                    f"PATH={_PATH}",
                    "--user",
                    "1001",
                    "--label",
                    f"dumpagent.test.base={wanted}",
                    made,
                )
            )
            buildah("commit", "--quiet", made, name)
        finally:
            buildah("rm", made)


def _python_as_in_ubi(root: Path) -> None:
    """Give the root filesystem a virtual environment with pip. Source: ubi9/python-312-minimal, APP_ROOT."""
    run(["chroot", root, "python3", "-m", "venv", "--without-pip", "/opt/app-root"])
    (site_packages,) = root.glob("opt/app-root/lib/python3.*/site-packages")
    run([sys.executable, "-m", "pip", "install", "--quiet", "--target", site_packages, "pip"])


def _unpack(package: str, root: Path, folder: Path) -> None:
    try:
        run(["apt-get", "download", "--quiet", package], cwd=folder)
    except CommandFailed:  # a machine that has never updated
        run(["apt-get", "update", "--quiet"])
        run(["apt-get", "download", "--quiet", package], cwd=folder)
    (archive,) = folder.glob(f"{package}_*.deb")
    run(["dpkg", "-x", archive, root])
    # What the package's own script would do when it is installed.
    for program in (*root.glob("usr/lib/jvm/java-*/bin/java*"), *root.glob("usr/lib/jvm/java-*/bin/jar")):
        link = root / "usr" / "bin" / program.name
        if not link.is_symlink():
            link.symlink_to("/" + str(program.relative_to(root)))


def _wheels() -> Path:
    """Give a folder with every wheel that the image needs: what it installs, and what builds it, as pinned with hashes."""
    if sys.version_info[:2] != _PYTHON:
        raise RuntimeError(f"needs Python {'.'.join(map(str, _PYTHON))}, as Debian 12 has it")
    pins = [PROJECT / "requirements" / name for name in ("image.txt", "build.txt")]

    def download(folder: Path) -> None:
        run(
            [
                *(
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--only-binary=:all:",
                    "--require-hashes",
                ),
                *("--dest", folder, *(word for path in pins for word in ("--requirement", path))),
            ]
        )

    digest = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()[:16]
    return cached_folder(f"wheels/{digest}", download)
