"""Volumes that break in ways of their own: a FUSE file system that hangs, an ext4 that turns read-only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mount import fuse_server
from tests.mount.node import Node


@contextmanager
def fuse(node: Node, mountpoint: str = "", *, squash: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Mount a FUSE file system on the host (at its volume, if nothing is named); it hangs while `node.base/hang` exists.

    `squash`: `root:UID` or `all:UID`, whom it maps to this user.
    """
    server = node.host.popen(
        [
            sys.executable,
            "-I",
            "-S",
            fuse_server.__file__,
            mountpoint or node.pv,
            f"{node.base}/hang",
            *([squash] if squash else []),
        ],
        stdout=subprocess.PIPE,
    )
    assert server.stdout
    assert server.stdout.readline() == b"mounted\n"
    try:
        yield server
    finally:
        Path(f"{node.base}/hang").unlink(missing_ok=True)
        server.kill()
        server.wait()
        server.stdout.close()


@contextmanager
def ext4(node: Node, size: str = "16M") -> Iterator[str]:
    """Mount an ext4 on a loop device at the host's volume; give the device. An error makes it read-only."""
    image = f"{node.base}/image"
    subprocess.run(["truncate", "-s", size, image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    device = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    ).stdout.strip()
    try:
        node.host.run(
            "mount(device, pv, 0, 'ext4', 'errors=remount-ro'); os.chmod(pv, 0o777)",
            device=device,
            pv=node.pv,
        )
        yield device
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def fail(device: str) -> None:
    """Let the ext4 on `device` meet an error. Source: Documentation/ABI/testing/sysfs-fs-ext4, trigger_fs_error."""
    Path(f"/sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error").write_text("a test\n")
