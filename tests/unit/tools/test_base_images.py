"""Base images by digest: asked for and written whole, or left as they are; a release is refused without them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tools.base_images import CONTAINERFILES, LIST, names, write
from tools.project import PROJECT

_DIGEST = "sha256:" + "ab" * 32
_PUSH = {"IMAGE_PUSH": "registry.example.com/team"}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Give a copy of what `make release-images` reads, without a list of digests."""
    for name in (*CONTAINERFILES, "project.env", "scripts/images"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, tmp_path / name)
    (tmp_path / "requirements").mkdir()
    return tmp_path


def _run(checkout: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/images with a builder that prints its words, and has pushed what it is told to push."""
    builder = checkout / "builder"
    builder.write_text(
        f'#!/bin/sh\necho "$@" >> {checkout}/log\nif [ "$1" = push ]; then echo {_DIGEST} > "$3"; fi\n'
    )
    builder.chmod(0o755)
    environment = {"PATH": os.environ["PATH"], "IMAGE_BUILDER": str(builder), **environ}
    return subprocess.run(
        [checkout / "scripts" / "images"], env=environment, capture_output=True, text=True, check=False
    )


def test_every_base_image_of_the_containerfiles_is_known() -> None:
    froms = sum((PROJECT / name).read_text().count("FROM ${") for name in CONTAINERFILES)
    assert froms >= 3
    assert len(names(PROJECT / name for name in CONTAINERFILES)) == 3


def test_the_list_has_a_digest_for_each(checkout: Path) -> None:
    write(checkout, lambda name: _DIGEST)
    lines = (checkout / LIST).read_text().splitlines()[1:]
    assert lines == [f"{name} {_DIGEST}" for name in names(checkout / name for name in CONTAINERFILES)]


def test_a_registry_that_does_not_answer_leaves_the_list_as_it_is(checkout: Path) -> None:
    (checkout / LIST).write_text("old\n")

    def ask(name: str) -> str:
        if "jdk" in name:
            raise RuntimeError(f"{name}: connection refused")
        return _DIGEST

    with pytest.raises(RuntimeError, match="connection refused"):
        write(checkout, ask)
    assert (checkout / LIST).read_text() == "old\n"


@pytest.mark.parametrize("digest", ["", "sha256:abc", "latest"])
def test_a_release_is_refused_on_a_base_image_without_digest(checkout: Path, digest: str) -> None:
    """Nothing is built, and no digest is made up."""
    write(checkout, lambda name: digest)
    done = _run(checkout, RELEASE="yes", **_PUSH)
    assert done.returncode == 1
    assert "no digest of the base image" in done.stderr
    assert "make base-digests" in done.stderr
    assert not (checkout / "log").exists()


def test_a_release_without_a_place_to_push_to_is_refused(checkout: Path) -> None:
    write(checkout, lambda name: _DIGEST)
    done = _run(checkout, RELEASE="yes")
    assert (done.returncode, "IMAGE_PUSH is not set" in done.stderr) == (1, True)


def test_a_release_builds_on_digests_alone(checkout: Path) -> None:
    write(checkout, lambda name: _DIGEST)
    done = _run(checkout, RELEASE="yes", **_PUSH)
    assert done.returncode == 0, done.stderr
    builds = [line for line in (checkout / "log").read_text().splitlines() if line.startswith("build ")]
    assert len(builds) == 3
    for line in builds:
        bases = [word for word in line.split() if "BASE=" in word]
        assert bases
        assert all(word.endswith(f"@{_DIGEST}") and ":latest" not in word for word in bases)


def test_an_image_for_trying_is_built_by_tag_and_says_so(checkout: Path) -> None:
    done = _run(checkout, **_PUSH)
    assert done.returncode == 0, done.stderr
    assert "which may change: make base-digests pins it" in done.stderr
    assert not (checkout / "manifests").exists()


def test_a_base_that_the_containerfile_names_by_digest_stays_as_it_is(checkout: Path) -> None:
    for name in CONTAINERFILES:
        path = checkout / name
        path.write_text(path.read_text().replace(":latest", f"@{_DIGEST}"))
    assert names(checkout / name for name in CONTAINERFILES) == []
    done = _run(checkout, RELEASE="yes", **_PUSH)
    assert done.returncode == 0, done.stderr
    assert "build-arg" not in (checkout / "log").read_text()
