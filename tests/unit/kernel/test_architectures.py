"""The kernel is asked in the same way on x86-64 and arm64: no number or layout of the one goes to the other."""

from __future__ import annotations

import ast
import ctypes
import fcntl
from pathlib import Path

import dumpagent
from dumpagent.kernel import beneath, mount

PACKAGE = Path(dumpagent.__file__).parent
# Source: Linux, include/uapi/asm-generic/unistd.h (arm64) and arch/x86/entry/syscalls/syscall_64.tbl: from 424 on a new
# call has one number on every architecture.
_FIRST_COMMON = 424
_COMMON = {"open_tree": 428, "openat2": 437}


def _syscall_numbers() -> dict[str, list[str]]:
    """Give module -> how the number is written in each call of syscall(2) in it."""
    found: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(".syscall"):
                found.setdefault(path.stem, []).append(ast.unparse(node.args[0]))
    return found


def test_every_call_by_number_has_one_that_all_architectures_share() -> None:
    """renameat2, mount and umount2 go through libc, leases through fcntl: they know their architecture."""
    assert _syscall_numbers() == {
        "beneath": ["ctypes.c_long(_NUMBER)"],
        "mount": ["ctypes.c_long(_OPEN_TREE)"],
    }
    assert beneath._NUMBER == _COMMON["openat2"] >= _FIRST_COMMON
    assert mount._OPEN_TREE == _COMMON["open_tree"] >= _FIRST_COMMON


def test_what_openat2_is_given_has_its_size_everywhere() -> None:
    """Three 64-bit fields, without a gap on any architecture. Source: openat2(2)."""
    assert ctypes.sizeof(beneath._OpenHow) == 24


def test_flags_that_differ_between_architectures_are_never_written_as_numbers() -> None:
    """O_DIRECTORY and O_NOFOLLOW are others on arm64. Source: Linux, arch/arm64/include/uapi/asm/fcntl.h."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                names = [target.id for target in node.targets if isinstance(target, ast.Name)]
                assert not any(name.lstrip("_").startswith("O_") for name in names), (path, names)


def test_a_lease_is_asked_by_the_names_of_the_platform() -> None:
    """Source: Linux, asm-generic/fcntl.h, F_LINUX_SPECIFIC_BASE: 1024, the same on both."""
    assert (fcntl.F_SETLEASE, fcntl.F_GETLEASE) == (1024, 1025)
