"""Opening below a directory: no name on the way leads out of it, with the kernel's call and without."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dumpagent.kernel import beneath
from dumpagent.kernel.beneath import DIRECTORY, FILE, open_beneath, open_by_level, open_file, open_root

Open = Callable[[int, str, int], int]


@pytest.fixture(params=[open_beneath, open_by_level], ids=["openat2", "by level"])
def opening(request: pytest.FixtureRequest) -> Open:
    opened: Open = request.param
    return opened


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/a/b/x.hprof").write_text("mine")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/x.hprof").write_text("another's")
    (tmp_path / "root/link").symlink_to(tmp_path / "outside")
    (tmp_path / "root/inner").symlink_to("a")
    (tmp_path / "root/a/last").symlink_to(tmp_path / "outside/x.hprof")
    fd = open_root(str(tmp_path / "root"))
    yield fd
    os.close(fd)


def test_what_lies_below_is_opened(opening: Open, root: int) -> None:
    fd = opening(root, "a/b/x.hprof", FILE)
    assert os.read(fd, 99) == b"mine"
    os.close(fd)
    os.close(opening(root, "a/b", DIRECTORY))
    os.close(opening(root, "", DIRECTORY))


@pytest.mark.parametrize("path", ["link/x.hprof", "inner/b/x.hprof", "a/last", "link"])
def test_a_link_at_any_level_is_refused(opening: Open, root: int, path: str) -> None:
    with pytest.raises(OSError, match="symbolic") as refused:
        os.close(opening(root, path, FILE))
    assert refused.value.errno == errno.ELOOP


@pytest.mark.parametrize("path", ["../outside/x.hprof", "a/../../outside/x.hprof"])
def test_there_is_no_way_up(root: int, path: str) -> None:
    with pytest.raises(OSError, match="cross-device"):
        os.close(open_beneath(root, path, FILE))


def test_another_file_system_is_not_entered(opening: Open) -> None:
    fd = open_root("/")
    try:
        with pytest.raises(OSError, match="cross-device"):
            os.close(opening(fd, "proc/self/status", FILE))
    finally:
        os.close(fd)


def test_a_path_longer_than_the_kernel_takes_is_opened(root: int) -> None:
    """Its owner makes it level by level; it must not be a hiding place or an error that stops others."""
    name, fd = "d" * 200, os.dup(root)
    for _ in range(30):
        os.mkdir(name, dir_fd=fd)
        inside = os.open(name, DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = inside
    os.close(os.open("x.hprof", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)
    os.close(open_beneath(root, "/".join([name] * 30) + "/x.hprof", FILE))


def test_a_kernel_or_seccomp_profile_without_the_call_is_no_obstacle(
    root: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beneath, "_NUMBER", 100_000)
    os.close(open_beneath(root, "a/b/x.hprof", FILE))
    with pytest.raises(OSError, match="symbolic"):
        os.close(open_beneath(root, "link/x.hprof", FILE))


@pytest.mark.parametrize("kind", ["fifo", "directory", "socket"])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, kind: str) -> None:
    if kind == "fifo":
        os.mkfifo(tmp_path / "x.hprof")
    elif kind == "directory":
        (tmp_path / "x.hprof").mkdir()
    else:
        os.mknod(tmp_path / "x.hprof", 0o140600)
    with pytest.raises(OSError, match="not a regular file"):
        os.close(open_file(str(tmp_path), "x.hprof"))
