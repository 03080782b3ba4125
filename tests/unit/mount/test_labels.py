"""SELinux labels: copied and set where a file system keeps them, and silently left where nothing can be done.

The attribute is real; the policy that would check it is in tests/vm.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dumpagent.mount.labels import copy_label, label_for_containers

APPS = b"system_u:object_r:container_file_t:s0:c11,c22\0"
_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="security.* attributes need root")


def _label(path: Path) -> bytes:
    return os.getxattr(path, "security.selinux")


@_ROOT
def test_a_copy_has_the_categories_of_its_original(tmp_path: Path) -> None:
    """Without them every namespace may read it by label."""
    source, target = tmp_path / "source", tmp_path / "target"
    for path in (source, target):
        path.touch()
    os.setxattr(source, "security.selinux", APPS)
    os.setxattr(target, "security.selinux", b"system_u:object_r:container_file_t:s0\0")
    with source.open() as one, target.open() as other:
        copy_label(one.fileno(), other.fileno())
    assert _label(target) == APPS


@_ROOT
def test_the_nodes_own_directory_is_labelled_with_the_managers_level(tmp_path: Path) -> None:
    """`mnt_t` refuses every container; a level without categories lets each of them write."""
    os.setxattr(tmp_path, "security.selinux", b"system_u:object_r:mnt_t:s0\0")
    mine = tmp_path / "current"
    mine.write_bytes(b"system_u:system_r:spc_t:s0\0")
    fd = os.open(tmp_path, os.O_PATH)
    label_for_containers(fd, process_label=str(mine))
    os.close(fd)
    assert _label(tmp_path) == b"system_u:object_r:container_file_t:s0\0"


def test_without_selinux_nothing_happens(tmp_path: Path) -> None:
    """No label is made up, and nothing is raised."""
    mine = tmp_path / "current"
    mine.write_bytes(b"unconfined\0")
    with mine.open() as file:
        label_for_containers(file.fileno(), process_label=str(mine))
        label_for_containers(file.fileno(), process_label=str(tmp_path / "absent"))
        copy_label(file.fileno(), file.fileno())
    assert os.listxattr(mine) == []
