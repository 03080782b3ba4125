#!/usr/bin/env python3
"""Writes a docker-archive image from a root filesystem; needs no registry, daemon or third-party module.

    mkimage.py ROOTFS_DIR NAME:TAG OUT.tar [--entrypoint WORD]...

Owners, modes, times and symlinks are kept; extended attributes are not.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import platform
import sys
import tarfile
import tempfile
from typing import IO

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def main() -> None:
    """Write the image that the command line describes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rootfs")
    parser.add_argument("name")
    parser.add_argument("out")
    parser.add_argument("--entrypoint", action="append", default=[])
    words = parser.parse_args()
    if not os.path.isdir(words.rootfs):
        sys.exit(f"{words.rootfs}: not a directory")
    if ":" not in words.name.rsplit("/", 1)[-1]:
        sys.exit(f"{words.name}: give a tag too, as in {words.name}:1")
    with tempfile.TemporaryFile(dir=os.path.dirname(os.path.abspath(words.out))) as layer:
        _write_layer(words.rootfs, layer)
        _write_archive(words.out, words.name, layer, words.entrypoint)


def _write_layer(rootfs: str, layer: io.BufferedRandom) -> None:
    def numeric(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uname = info.gname = ""  # names are this machine's; the numbers count
        return info

    with tarfile.open(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(os.listdir(rootfs)):
            archive.add(os.path.join(rootfs, name), name, filter=numeric)


def _write_archive(out: str, name: str, layer: io.BufferedRandom, entrypoint: list[str]) -> None:
    """Source: Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset Format"."""
    size_bytes = layer.seek(0, os.SEEK_END)
    layer.seek(0)
    digest = hashlib.file_digest(layer, "sha256").hexdigest()
    layer.seek(0)
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": entrypoint or None, "Env": [_PATH], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
            "history": [{"created_by": "mkimage.py"}],
        }
    ).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = f"{digest}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [name], "Layers": [layer_name]}]).encode()
    with tarfile.open(f"{out}.part", "w") as archive:
        members: list[tuple[str, IO[bytes], int]] = [
            (config_name, io.BytesIO(config), len(config)),
            (layer_name, layer, size_bytes),
            ("manifest.json", io.BytesIO(manifest), len(manifest)),
        ]
        for member, content, length in members:
            info = tarfile.TarInfo(member)
            info.size, info.mode = length, 0o644
            archive.addfile(info, content)
    os.replace(f"{out}.part", out)
    print(f"{out}: {name} {size_bytes >> 20} MiB")


if __name__ == "__main__":
    main()
