"""Names of ours on a volume that is everybody's: whoever makes them first gains nothing. Run as root, with real users."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from dumpagent.kernel.beneath import open_root
from dumpagent.kernel.owned import Owned, own_directory

TENANT = 12345
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="changes users, which root alone may")


def as_user(uid: int, work: Callable[[], object]) -> None:
    """Do `work` as an ordinary user without capabilities, in a child."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
            work()
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    for above in [tmp_path, *tmp_path.parents]:
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    root = tmp_path / "dump"
    root.mkdir()
    root.chmod(0o1777)
    return root


def own(volume: Path) -> Owned:
    fd = open_root(str(volume))
    try:
        return own_directory(fd)
    finally:
        os.close(fd)


def is_ours(path: Path) -> bool:
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == 0 and stat.S_IMODE(status.st_mode) == 0o700


def test_on_a_fresh_volume_it_is_made_and_closed_to_others(volume: Path) -> None:
    assert own(volume) == Owned(".dumpagent", 0)
    assert is_ours(volume / ".dumpagent")
    assert own(volume) == Owned(".dumpagent", 0)
    assert os.listdir(volume) == [".dumpagent"]  # what was made to measure the owner is gone


@pytest.mark.parametrize("kind", ["directory", "file", "link", "fifo"])
def test_what_a_tenant_made_first_is_moved_aside_and_told_with_its_owner(volume: Path, kind: str) -> None:
    path = str(volume / ".dumpagent")

    def squat() -> None:
        if kind == "directory":
            os.makedirs(f"{path}/receipts")
        elif kind == "file":
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
        elif kind == "link":
            os.symlink("/etc", path)
        else:
            os.mkfifo(path)

    as_user(TENANT, squat)
    owned = own(volume)
    assert is_ours(volume / ".dumpagent")
    assert os.listdir(volume / ".dumpagent") == []
    ((name, uid),) = owned.moved_aside
    assert uid == TENANT
    assert (volume / name).lstat().st_uid == TENANT


def test_one_that_others_may_write_is_not_believed(volume: Path) -> None:
    (volume / ".dumpagent").mkdir()
    (volume / ".dumpagent").chmod(0o777)
    assert own(volume).moved_aside
    assert is_ours(volume / ".dumpagent")


@pytest.mark.parametrize("kind", ["symlink", "tenants", "hard link"])
def test_every_level_of_it_is_looked_at(volume: Path, kind: str) -> None:
    """A link `deleting` had a victim's whole directory renamed and uploaded."""
    own(volume)
    state = volume / ".dumpagent"
    if kind == "symlink":
        (state / "deleting").symlink_to(volume)
    elif kind == "tenants":
        (state / "receipts").mkdir()
        os.chown(state / "receipts", TENANT, TENANT)
    else:
        (volume / "x").touch()
        os.link(volume / "x", state / "lock")
    ((name, _),) = own(volume).moved_aside
    assert name.startswith(".dumpagent/")
    assert not {"deleting", "receipts", "lock"} & set(os.listdir(state))


def test_where_it_cannot_be_moved_aside_another_name_is_used_and_found_again(volume: Path) -> None:
    """An uploader without a manager and without a right to rename: it goes on, beside the squatted name."""
    (volume / ".dumpagent").mkdir()
    os.chown(volume / ".dumpagent", TENANT, TENANT)
    found: list[str] = []

    def agent() -> None:
        fd = open_root(str(volume))
        first, second = own_directory(fd), own_directory(fd)
        assert first.name == second.name != ".dumpagent"
        assert first.moved_aside == ((".dumpagent", TENANT),)
        assert first.uid == 4242

    as_user(4242, agent)
    assert found == []
    assert (volume / ".dumpagent").lstat().st_uid == TENANT


def test_a_tenant_cannot_take_it_away_again(volume: Path) -> None:
    own(volume)

    def attack() -> None:
        for work in (
            lambda: os.rename(volume / ".dumpagent", volume / "mine"),
            lambda: os.rmdir(volume / ".dumpagent"),
            lambda: os.mkdir(volume / ".dumpagent/receipts"),
            lambda: os.listdir(volume / ".dumpagent"),
        ):
            with pytest.raises(PermissionError):
                work()

    as_user(TENANT, attack)
    assert is_ours(volume / ".dumpagent")
