"""Whoever takes over the uploader's process: what its user and capabilities let him do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.attacks.conftest import Hold
from tests.attacks.stage import Stage

pytestmark = [pytest.mark.slow, pytest.mark.attack]

# With CAP_DAC_READ_SEARCH every inode of a file system opens by its number, whatever the mount shows of it.
# Source: open_by_handle_at(2); name_to_handle_at(2) is free for all, and the handle of a root directory can be guessed.
BY_HANDLE = """
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
handle = ctypes.create_string_buffer(struct.pack("Ii", 128, 0), 136)
mount_id = ctypes.c_int()
assert libc.name_to_handle_at(-100, sys.argv[1].encode(), handle, ctypes.byref(mount_id), 0) == 0, os.strerror(ctypes.get_errno())
directory = os.open(sys.argv[1], os.O_RDONLY)
opened = libc.open_by_handle_at(directory, handle, os.O_RDONLY)
print("opened" if opened >= 0 else os.strerror(ctypes.get_errno()))
"""


def test_the_uploader_opens_nothing_of_the_node_by_its_inode(held: Hold) -> None:
    def attack(stage: Stage) -> str:
        asked = stage.node.app().popen(
            [*stage.uploader_pod.words(), sys.executable, "-I", "-S", "-c", BY_HANDLE, stage.node.app_mnt],
            stdout=subprocess.PIPE,
            text=True,
        )
        answer, _ = asked.communicate(timeout=30)
        if answer.strip() == "opened":
            return "open_by_handle_at(2) opens any file of the node's file system"
        assert answer.strip() == "Operation not permitted"
        if stage.version.is_ours:
            assert sorted(stage.uploader_pod.capabilities) == ["DAC_OVERRIDE", "LEASE"]
        return ""

    held(attack, manager=False)
