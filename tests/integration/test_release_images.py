"""`make base-digests` and `make release-images` against a real registry, with skopeo and buildah: what is named is what is there."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness.fixtures import need
from tests.harness.stores.server import HOST, free_ports
from tools.project import PROJECT

pytestmark = pytest.mark.slow
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = """\
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}
http: {{addr: "{address}"}}
"""


@dataclass(frozen=True)
class Release:
    """A checkout with Containerfiles of one line, a registry beside it, and what the programs get as environment."""

    folder: Path
    address: str
    environment: dict[str, str]

    def run(self, *words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a program in the checkout."""
        return subprocess.run(
            words,
            cwd=self.folder,
            env=self.environment | environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def digest(self, name: str) -> str:
        """Give the digest of an image by the registry's own word."""
        request = urllib.request.Request(
            f"http://{self.address}/v2/{name.replace(':', '/manifests/')}", headers={"Accept": _MANIFEST}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
            assert answer.headers["Docker-Content-Digest"] == f"sha256:{hashlib.sha256(body).hexdigest()}"
            return str(answer.headers["Docker-Content-Digest"])


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """Give the address of a real registry on the loopback."""
    need("docker-registry", "skopeo", "buildah")
    address = f"{HOST}:{free_ports(1)[0]}"
    (tmp_path / "registry.yaml").write_text(_CONFIG.format(folder=tmp_path, address=address))
    with open(tmp_path / "registry.log", "w") as log:
        served = subprocess.Popen(
            ["docker-registry", "serve", tmp_path / "registry.yaml"], stdout=log, stderr=log
        )
    try:
        for _ in range(200):
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=1).close()
                break
            except OSError:
                assert served.poll() is None, (tmp_path / "registry.log").read_text()
                time.sleep(0.05)
        yield address
    finally:
        served.terminate()
        served.wait(10)


@pytest.fixture
def release(tmp_path: Path, registry: str) -> Release:
    """Give a checkout whose base image is in the registry."""
    folder = tmp_path / "checkout"
    (folder / "memory-leak-app").mkdir(parents=True)
    (folder / "requirements").mkdir()
    for name in ("scripts", "tools"):
        shutil.copytree(PROJECT / name, folder / name)
    shutil.copy(PROJECT / "project.env", folder)
    text = f"ARG BASE={registry}/base:1\nFROM ${{BASE}} AS analyze\nCOPY . /copied\nFROM ${{BASE}}\n"
    for name in (".", "memory-leak-app"):
        (folder / name / "Containerfile").write_text(text)
    (folder / "memory-leak-app" / "file").write_text("x")
    (tmp_path / ".config" / "containers").mkdir(parents=True)  # below HOME
    (tmp_path / ".config" / "containers" / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{registry}"\ninsecure = true\n'
    )
    (tmp_path / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/root"\nrunroot = "{tmp_path}/run"\n'
    )
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "IMAGE_BUILDER": "buildah", "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(tmp_path / "storage.conf"),
    }  # fmt: skip
    made = Release(folder, registry, environment)
    base = made.run("buildah", "from", "scratch").stdout.strip()
    for words in (
        ("copy", base, str(folder / "project.env")),
        ("commit", base, f"docker://{registry}/base:1"),
    ):
        done = made.run("buildah", *words)
        assert done.returncode == 0, done.stderr
    return made


def _renew(release: Release) -> subprocess.CompletedProcess[str]:
    return release.run("python3", "-m", "tools.base_images", release.folder)


def test_the_digests_are_those_of_the_registry(release: Release) -> None:
    done = _renew(release)
    assert done.returncode == 0, done.stderr
    listed = (release.folder / "requirements" / "base-images.txt").read_text().splitlines()[1:]
    assert listed == [f"{release.address}/base:1 {release.digest('base:1')}"]


def test_an_image_that_is_not_there_is_told_and_nothing_is_written(release: Release) -> None:
    path = release.folder / "Containerfile"
    path.write_text(path.read_text().replace("base:1", "base:none"))
    done = _renew(release)
    assert done.returncode == 1
    assert re.search(r"base-digests: \S+/base:none: .*manifest unknown", done.stderr)
    assert not (release.folder / "requirements" / "base-images.txt").exists()


def test_what_was_pushed_is_named_by_the_registrys_digest(release: Release) -> None:
    assert _renew(release).returncode == 0
    done = release.run(
        release.folder / "scripts" / "images", RELEASE="yes", IMAGE_PUSH=f"{release.address}/team"
    )
    assert done.returncode == 0, done.stderr
    written = (release.folder / "manifests/components/image-digests/kustomization.yaml").read_text()
    for name in ("dumpagent", "dumpagent-analyze", "memory-leak-app"):
        assert re.search(
            rf'name: localhost/{name}, newName: {release.address}/team/{name}, digest: "{release.digest(f"team/{name}:0.2.0")}"',
            written,
        ), written


def test_a_tag_that_moved_after_the_digests_were_written_changes_no_release(release: Release) -> None:
    """The base is what its digest says, whatever its tag names by then."""
    assert _renew(release).returncode == 0
    other = release.run("buildah", "from", "scratch").stdout.strip()
    release.run("buildah", "config", "--label", "moved=yes", other)
    assert release.run("buildah", "commit", other, f"docker://{release.address}/base:1").returncode == 0
    done = release.run(
        release.folder / "scripts" / "images", RELEASE="yes", IMAGE_PUSH=f"{release.address}/team"
    )
    assert done.returncode == 0, done.stderr
    image = json.loads(
        release.run("buildah", "inspect", "--type", "image", "localhost/dumpagent:0.2.0").stdout
    )
    assert "moved" not in (image["OCIv1"]["config"].get("Labels") or {})
