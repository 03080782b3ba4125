"""Renaming: in one step where the kernel can, and never over another file, whatever the file system can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dumpagent.kernel.rename import link_and_unlink, rename_noreplace

BOTH = pytest.mark.parametrize("rename", [rename_noreplace, link_and_unlink])


@BOTH
def test_a_file_gets_a_free_name(tmp_path: Path, rename: Callable[[str, str], None]) -> None:
    old, new = tmp_path / "java_pid1.hprof", tmp_path / "new\udcff"
    old.write_bytes(b"dump")
    inode = old.stat().st_ino
    rename(str(old), str(new))
    assert not old.exists()
    assert (new.read_bytes(), new.stat().st_ino) == (b"dump", inode)


@BOTH
def test_a_name_that_is_taken_is_refused_and_both_files_stay(
    tmp_path: Path, rename: Callable[[str, str], None]
) -> None:
    (tmp_path / "old").write_bytes(b"a")
    (tmp_path / "new").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        rename(str(tmp_path / "old"), str(tmp_path / "new"))
    assert [(tmp_path / name).read_bytes() for name in ("old", "new")] == [b"a", b"b"]


@BOTH
def test_a_file_that_is_gone_is_said_so(tmp_path: Path, rename: Callable[[str, str], None]) -> None:
    with pytest.raises(FileNotFoundError):
        rename(str(tmp_path / "old"), str(tmp_path / "new"))


def test_a_link_that_a_crash_left_behind_is_finished(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"a")
    (tmp_path / "new").hardlink_to(tmp_path / "old")
    link_and_unlink(str(tmp_path / "old"), str(tmp_path / "new"))
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
