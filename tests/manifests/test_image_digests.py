"""The component that a release writes names every image by digest, in every overlay."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import manifests
from tools.base_images import CONTAINERFILES, write
from tools.kubectl import kustomize
from tools.project import PROJECT

_DIGEST = "sha256:" + "cd" * 32
_COMPONENT = "components/image-digests"
_BY_DIGEST = re.compile(r"[^@\s]+@sha256:[0-9a-f]{64}")
OVERLAYS = sorted(path.parent.name for path in (manifests.FOLDER / "overlays").glob("*/kustomization.yaml"))


def _images(document: Any) -> Iterator[str]:
    """Give the image of every container of an object, whatever kind it is."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("containers", "initContainers"):
                yield from (container["image"] for container in value if "image" in container)
            yield from _images(value)
    elif isinstance(document, list):
        for value in document:
            yield from _images(value)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the manifests after `make release-images`, with a builder that has pushed: a fake."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(manifests.FOLDER, folder / "manifests")
    for name in (*CONTAINERFILES, "project.env", "scripts/images"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(PROJECT / name, folder / name)
    (folder / "requirements").mkdir()
    write(folder, lambda name: _DIGEST)
    builder = folder / "builder"
    builder.write_text(f'#!/bin/sh\nif [ "$1" = push ]; then echo {_DIGEST} > "$3"; fi\n')
    builder.chmod(0o755)
    environment = {
        "PATH": "/usr/bin:/bin",
        "RELEASE": "yes",
        "IMAGE_BUILDER": str(builder),
        "IMAGE_PUSH": "registry.example.com:5000/team",
    }
    subprocess.run([folder / "scripts" / "images"], env=environment, check=True, capture_output=True)
    return folder


def _without_digest(checkout: Path, overlay: str) -> tuple[list[str], list[str]]:
    """Give all images of an overlay with the component, and those of them that are named by a tag."""
    mine = checkout / "mine" / overlay
    mine.mkdir(parents=True, exist_ok=True)
    (mine / "kustomization.yaml").write_text(
        f"resources: [../../manifests/overlays/{overlay}]\ncomponents: [../../manifests/{_COMPONENT}]\n"
    )
    found = [name for made in yaml.safe_load_all(kustomize(mine)) for name in _images(made)]
    return found, [name for name in found if not _BY_DIGEST.fullmatch(name)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_with_the_component_no_image_is_named_by_a_tag(checkout: Path, overlay: str) -> None:
    _, tags = _without_digest(checkout, overlay)
    assert tags == []


def test_an_image_that_the_component_leaves_out_is_found(checkout: Path) -> None:
    path = checkout / "manifests" / _COMPONENT / "kustomization.yaml"
    whole = path.read_text()
    try:
        path.write_text(
            "\n".join(line for line in whole.splitlines() if "localhost/dumpagent," not in line) + "\n"
        )
        found, tags = _without_digest(checkout, "kubernetes")
        assert tags == found != []
    finally:
        path.write_text(whole)


def test_what_a_release_has_written_here_names_digests_alone() -> None:
    """Until the first release there is nothing to check: a digest comes from a registry, never from us."""
    path = manifests.FOLDER / _COMPONENT / "kustomization.yaml"
    images = yaml.safe_load(path.read_text())["images"] if path.exists() else []
    for image in images:
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", image["digest"]), image
        assert "newTag" not in image
