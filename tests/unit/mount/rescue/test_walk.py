"""Rescue: what the node's own disk caught is moved into the volume; nothing is lost, overwritten, or followed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dumpagent.kernel.lease import WriterState, take_read_lease
from dumpagent.mount.rescue.move import DIRECTORY, opened
from dumpagent.mount.rescue.walk import Outcome, Rescue, RescuePass

DUMP_TIME = 1_700_000_000  # 2023-11-14T22:13:20Z
STAMP = "20231114T221320Z"


class Disk:
    """The node's own directory and the volume's, side by side."""

    def __init__(self, base: Path) -> None:
        self.node, self.volume = base / "node", base / "volume"
        self.node.mkdir()
        self.volume.mkdir()

    def put(self, name: str, content: bytes) -> Path:
        path = self.node / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes(content)
        os.utime(path, (DUMP_TIME, DUMP_TIME))
        return path

    def rescue(
        self,
        *,
        is_quiet: Callable[[str], bool] = lambda _: False,
        lease: Callable[[int], WriterState] = take_read_lease,
    ) -> list[Rescue]:
        told: list[Rescue] = []
        with (
            opened(os.open(self.node, DIRECTORY)) as hidden,
            opened(os.open(self.volume, DIRECTORY)) as volume,
        ):
            RescuePass(hidden, volume, "node-1", told.append, is_quiet, lease).run()
        return told

    def stored(self) -> dict[str, bytes]:
        """Give what the volume holds, the agent's own directory left out."""
        return {
            str(path.relative_to(self.volume)): path.read_bytes()
            for path in sorted(self.volume.rglob("*"))
            if path.is_file() and ".dumpagent" not in path.parts
        }

    def left(self) -> list[str]:
        return sorted(
            str(path.relative_to(self.node))
            for path in self.node.rglob("*")
            if path.is_symlink() or not path.is_dir()
        )


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def test_a_file_is_moved_with_its_time_and_mode_and_told(disk: Disk) -> None:
    os.chmod(disk.put("java_pid1.hprof", b"dump"), 0o600)
    told = disk.rescue()
    assert disk.stored() == {"java_pid1.hprof": b"dump"}
    assert disk.left() == []
    seen = (disk.volume / "java_pid1.hprof").stat()
    assert (seen.st_mtime, seen.st_mode & 0o7777) == (DUMP_TIME, 0o600)
    assert [(r.outcome, r.path, r.to, r.size_bytes) for r in told] == [
        (Outcome.RESCUED, "java_pid1.hprof", "java_pid1.hprof", 4)
    ]
    assert list((disk.volume / ".dumpagent/rescue").iterdir()) == []


def test_directories_come_along(disk: Disk) -> None:
    disk.put("shop/cart/a.hprof", b"1")
    os.chmod(disk.node / "shop", 0o1777)
    disk.put("empty/.keep", b"").unlink()
    disk.rescue()
    assert disk.stored() == {"shop/cart/a.hprof": b"1"}
    assert (disk.volume / "shop").stat().st_mode & 0o7777 == 0o1777
    assert not (disk.volume / "empty").exists()


def test_what_the_volume_holds_is_never_overwritten(disk: Disk) -> None:
    """The JVM's name is nearly always taken: its pid is 1 in every container."""
    disk.put("java_pid1.hprof", b"second")
    (disk.volume / "java_pid1.hprof").write_bytes(b"first!")
    disk.rescue()
    disk.put("java_pid1.hprof", b"third!")
    disk.rescue()
    assert disk.stored() == {
        "java_pid1.hprof": b"first!",
        f"java_pid1.rescued-{STAMP}.hprof": b"second",
        f"java_pid1.rescued-{STAMP}-2.hprof": b"third!",
    }


@pytest.mark.parametrize(
    ("name", "as_name"),
    [
        ("a.hprof.gz", f"a.rescued-{STAMP}.hprof.gz"),
        ("a.hprof.1", f"a.rescued-{STAMP}.hprof.1"),
        ("gc.log", f"gc.rescued-{STAMP}.log"),
        ("core", f"core.rescued-{STAMP}"),
        ("n" * 249 + ".hprof", "n" * (249 - 25) + f".rescued-{STAMP}.hprof"),
    ],
)
def test_a_new_name_is_still_that_of_a_dump(disk: Disk, name: str, as_name: str) -> None:
    disk.put(name, b"new")
    (disk.volume / name).write_bytes(b"old")
    disk.rescue()
    assert disk.stored() == {name: b"old", as_name: b"new"}


@pytest.mark.parametrize("name", ["a b", "new\nline.hprof", "\udcff\udcfe.hprof", "-rf", "back\\slash"])
def test_any_name_is_rescued(disk: Disk, name: str) -> None:
    disk.put(name, b"x")
    assert [r.path for r in disk.rescue()] == [name]
    assert disk.stored() == {name: b"x"}


def test_a_file_with_a_writer_waits_for_its_end(disk: Disk) -> None:
    path = disk.put("java_pid1.hprof", b"half")
    with path.open("ab") as writer:
        assert [r.outcome for r in disk.rescue()] == [Outcome.WAITING]
        assert disk.stored() == {}
        writer.write(b" whole")
    assert [r.outcome for r in disk.rescue()] == [Outcome.RESCUED]
    assert disk.stored() == {"java_pid1.hprof": b"half whole"}


def test_parts_wait_for_the_dump_that_is_merged_from_them_and_never_keep_their_plain_name(disk: Disk) -> None:
    """JDK 22 and later: a part that goes early breaks the dump, a part that stays breaks the next one."""
    disk.put("java_pid1.hprof.p0", b"part")
    with disk.put("java_pid1.hprof", b"stub").open("ab"):
        assert {r.outcome for r in disk.rescue()} == {Outcome.WAITING}
        assert disk.stored() == {}
    disk.rescue()
    (written,) = {name.split(".rescued-")[1].split(".hprof")[0] for name in disk.stored()}
    assert disk.stored() == {
        f"java_pid1.rescued-{written}.hprof": b"stub",
        f"java_pid1.rescued-{written}.hprof.p0": b"part",
    }


def test_unknown_writers_count_as_writers_until_the_file_was_quiet_for_long_enough(disk: Disk) -> None:
    disk.put("a.hprof", b"x")
    (told,) = disk.rescue(lease=lambda _: WriterState.UNKNOWN)
    assert told.outcome is Outcome.WAITING
    assert disk.stored() == {}
    disk.rescue(lease=lambda _: WriterState.UNKNOWN, is_quiet=told.stamp.__eq__)
    assert disk.stored() == {"a.hprof": b"x"}
    assert disk.left() == []


def test_a_file_that_is_written_during_the_copy_stays(disk: Disk) -> None:
    path = disk.put("a.hprof", b"x")
    looks = 0

    def lease(fd: int) -> WriterState:
        nonlocal looks
        looks += 1
        if looks == 2:  # after the copy, before the link
            with path.open("ab") as writer:
                writer.write(b"y")
        return take_read_lease(fd)

    assert [r.outcome for r in disk.rescue(lease=lease)] == [Outcome.WAITING]
    assert (disk.stored(), disk.left()) == ({}, ["a.hprof"])
    disk.rescue()
    assert disk.stored() == {"a.hprof": b"xy"}


def test_links_are_never_followed(disk: Disk, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_bytes(b"key")
    (disk.node / "key.hprof").symlink_to(secret / "key")
    (disk.node / "all").symlink_to(secret)
    os.mkfifo(disk.node / "pipe.hprof")
    disk.put("app/a.hprof", b"1")
    (disk.volume / "app").symlink_to(secret)
    disk.put("b.hprof", b"2")
    (disk.volume / "b.hprof").symlink_to(secret / "b")
    told = disk.rescue()
    assert sorted(os.listdir(secret)) == ["key"]
    assert (disk.volume / f"b.rescued-{STAMP}.hprof").read_bytes() == b"2"
    assert not [r for r in told if r.outcome is Outcome.FAILED]
    (own_place,) = disk.volume.glob("app.rescued-*")
    assert (own_place / "a.hprof").read_bytes() == b"1"
    assert disk.left() == ["all", "key.hprof", "pipe.hprof"]


def test_a_ready_on_the_nodes_own_disk_is_removed_and_the_agents_state_is_left_alone(disk: Disk) -> None:
    disk.put(".ready", b"ready")
    disk.put(".dumpagent/receipts/x.json", b"{}")
    assert [r.outcome for r in disk.rescue()] == [Outcome.READY_REMOVED]
    assert disk.left() == [".dumpagent/receipts/x.json"]
    assert disk.stored() == {}


def test_one_file_that_fails_does_not_hold_up_the_next(disk: Disk) -> None:
    disk.put("/".join(["a"] * 40) + "/x", b"too deep")
    disk.put("b", b"2")
    assert {r.path: r.outcome for r in disk.rescue()} == {
        "/".join(["a"] * 33): Outcome.FAILED,
        "b": Outcome.RESCUED,
    }


def test_leftovers_of_this_node_are_swept_and_those_of_others_kept(disk: Disk) -> None:
    drawer = disk.volume / ".dumpagent/rescue"
    drawer.mkdir(parents=True)
    (drawer / "node-1.1-2-3").write_bytes(b"left by a kill")
    (drawer / "node-2.1-2-3").write_bytes(b"being written by another node")
    disk.rescue()
    assert os.listdir(drawer) == ["node-2.1-2-3"]


def test_a_target_that_is_the_source_itself_is_left_alone(disk: Disk) -> None:
    disk.put("a", b"1")
    disk.volume = disk.node
    assert disk.rescue() == []
    assert disk.left() == ["a"]


@pytest.mark.slow
def test_a_kill_at_any_point_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """SIGKILL after the 1st, 2nd, 3rd ... call that touches the disk; then one more pass."""
    killed = 0
    for call in range(1, 200):
        base = tmp_path / str(call)
        base.mkdir()
        disk = Disk(base)
        disk.put("java_pid1.hprof", b"second")
        (disk.volume / "java_pid1.hprof").write_bytes(b"first!")
        disk.put("free.hprof", b"free")
        disk.put("cut.hprof", b"stub")
        os.utime(disk.put("cut.hprof.p0", b"part"), (1, 1))
        disk.put("shop/a.hprof", b"deep")
        pid = os.fork()
        if pid == 0:
            _rescue_and_die_at(disk, call)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status)
        disk.rescue()
        assert sorted(disk.stored().values()) == [b"deep", b"first!", b"free", b"part", b"second", b"stub"], (
            call
        )
        assert disk.stored()["java_pid1.hprof"] == b"first!"
        assert disk.stored()[f"cut.rescued-{STAMP}.hprof.p0"] == b"part", "beside its dump"
        assert disk.left() == []
        assert list((disk.volume / ".dumpagent/rescue").iterdir()) == [], call
        if not os.WIFSIGNALED(status):
            break
    assert killed > 30


def _rescue_and_die_at(disk: Disk, call: int) -> None:
    """Run a pass in this process and die, as by SIGKILL, at the `call`-th file operation that Python announces."""
    seen = 0

    def die(event: str, _: tuple[object, ...]) -> None:
        nonlocal seen
        seen += event in (
            "open",
            "os.link",
            "os.rename",
            "os.remove",
            "os.mkdir",
            "os.utime",
            "os.chown",
            "os.chmod",
        )
        if seen == call:
            seen += 1  # the kill is announced too
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(10)

    sys.addaudithook(die)
    try:
        disk.rescue()
    finally:
        os._exit(0)


def test_a_users_dump_does_not_wait_for_another_users_thousands(disk: Disk) -> None:
    """20,000 small files of one tenant kept the others' dumps in the node's own directory for as long as they were moved."""
    for number in range(300):
        os.chown(disk.put(f"a{number}.hprof", b"x"), 12345, 12345)
    for number in range(300):
        os.chown(disk.put(f"aa/{number}.hprof", b"x"), 12345, 12345)
    os.chown(disk.node / "aa", 12345, 12345)
    os.chown(disk.put("shop.hprof", b"shop"), 10001, 10001)
    os.chown(disk.put("shop/java_pid1.hprof", b"shop"), 10001, 10001)
    os.chown(disk.node / "shop", 10001, 10001)
    order = [rescue.path for rescue in disk.rescue()]
    assert len(order) == 602
    assert order.index("shop.hprof") < 5
    assert order.index("shop/java_pid1.hprof") < 5


def test_a_users_dump_does_not_wait_for_another_users_largest(disk: Disk) -> None:
    os.chown(disk.put("a.hprof", bytes(50 << 20)), 12345, 12345)
    os.chown(disk.put("b.hprof", bytes(50 << 20)), 12345, 12345)
    for number in range(5):
        os.chown(disk.put(f"shop{number}.hprof", b"shop"), 10001, 10001)
    assert [rescue.path for rescue in disk.rescue()] == [
        *(f"shop{n}.hprof" for n in range(5)),
        "a.hprof",
        "b.hprof",
    ]


def test_more_files_of_one_user_than_a_pass_takes_come_with_the_next_passes(disk: Disk) -> None:
    for number in range(2100):
        os.chown(disk.put(f"{number}.hprof", b"x"), 12345, 12345)
    told = disk.rescue()
    assert [rescue.outcome for rescue in told].count(Outcome.RESCUED) == 2000
    assert Outcome.WAITING in [rescue.outcome for rescue in told]
    disk.rescue()
    assert len(disk.stored()) == 2100
    assert not disk.left()
