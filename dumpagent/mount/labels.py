"""SELinux labels of files; where SELinux is off, nothing happens.

Source: xattr(7), security.selinux; selinux(8); Linux kernel, security/selinux/hooks.c (/proc/self/attr/current).
"""

from __future__ import annotations

import os

_ATTRIBUTE = "security.selinux"
_CONTAINERS_FILES = "container_file_t"  # Source: container-selinux, container_contexts


def copy_label(source_fd: int, target_fd: int) -> None:
    """Give the file open on `target_fd` the label of the other one. A file system without labels keeps its own."""
    try:
        label = os.getxattr(_path(source_fd), _ATTRIBUTE)
        if label != os.getxattr(_path(target_fd), _ATTRIBUTE):
            os.setxattr(_path(target_fd), _ATTRIBUTE, label)
    except OSError:
        pass  # SELinux is off, or the file system keeps no labels


def label_for_containers(fd: int, *, process_label: str = "/proc/self/attr/current") -> None:
    """Label what is open on `fd` (O_PATH will do) as a volume of this container's own level.

    Containers of every category may then write there if this container's level has none, as the manifests set it.
    """
    try:
        with open(process_label, encoding="ascii") as file:
            user, _role, _type, level = file.read().rstrip("\0\n").split(":", 3)
        wanted = f"{user}:object_r:{_CONTAINERS_FILES}:{level}\0".encode()
        if os.getxattr(_path(fd), _ATTRIBUTE) != wanted:
            os.setxattr(_path(fd), _ATTRIBUTE, wanted)
    except (OSError, ValueError):
        pass  # SELinux is off, or its policy has no such type


def _path(fd: int) -> str:
    return f"/proc/self/fd/{fd}"  # the calls on descriptors refuse O_PATH
