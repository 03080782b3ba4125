"""A directory of its own for each pod: made by its own user, closed to others, and never another user's."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from dumpagent.errors import Refused
from dumpagent.mount.own_directory import make_own_directory


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_it_is_made_and_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        said = make_own_directory(str(tmp_path), "shop", "checkout-0")
    finally:
        os.umask(before)
    assert said == f"dumps of this pod go to {tmp_path}/shop_checkout-0"
    assert mode(tmp_path / "shop_checkout-0") == 0o700


def test_one_of_our_own_is_taken_and_closed(tmp_path: Path) -> None:
    """The init container runs again when the pod's sandbox is made anew."""
    (tmp_path / "shop_checkout-0").mkdir()
    (tmp_path / "shop_checkout-0/java_pid1.hprof").write_bytes(b"dump")
    (tmp_path / "shop_checkout-0").chmod(0o755)
    make_own_directory(str(tmp_path), "shop", "checkout-0")
    assert mode(tmp_path / "shop_checkout-0") == 0o700
    assert (tmp_path / "shop_checkout-0/java_pid1.hprof").read_bytes() == b"dump"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory away, which root alone may")
def test_one_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop_checkout-0").mkdir()
    os.chown(tmp_path / "shop_checkout-0", 12345, 12345)
    with pytest.raises(Refused, match="directory of the user 12345"):
        make_own_directory(str(tmp_path), "shop", "checkout-0")


@pytest.mark.parametrize("kind", ["file", "link", "fifo"])
def test_anything_else_of_that_name_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "shop_checkout-0"
    if kind == "file":
        path.touch()
    elif kind == "link":
        path.symlink_to("/")
    else:
        os.mkfifo(path)
    with pytest.raises(Refused, match="is a file of the user"):
        make_own_directory(str(tmp_path), "shop", "checkout-0")
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="no name of a directory"):
        make_own_directory(str(tmp_path), "shop", "../x")
