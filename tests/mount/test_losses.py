"""What applications write while the mount is away ends up in the volume, by the remount or by the rescue."""

from __future__ import annotations

import signal
import sys
import time

import pytest

from tests.mount.node import Node, eventually

pytestmark = pytest.mark.slow

# Creates file after file, each with its own number inside, until the file `stop` appears; prints how many.
WRITER = """
import os, sys, time
directory, stop, pause_s = sys.argv[1], sys.argv[2], float(sys.argv[3])
n = 0
while not os.path.exists(stop):
    with open(f"{directory}/app-{n}.hprof", "x") as file:
        file.write(f"dump {n}")
    n += 1
    if pause_s:
        time.sleep(pause_s)
print(n)
"""


def lose(node: Node) -> None:
    node.host.run("umount(path, 2)", path=f"{node.mnt}/dump")


def test_an_application_that_writes_without_pause_loses_no_file(node: Node) -> None:
    # A page for each file, and a quick machine makes tens of thousands.
    node.host.run("mount('pv', pv, MS_REMOUNT, 'tmpfs', 'size=2g,nr_inodes=2m')", pv=node.pv)
    manager = node.manager("--log-level", "info").ready()
    app = node.app()
    stop = node.base / "stop"
    writer = app.popen(
        [sys.executable, "-I", "-S", "-c", WRITER, node.dumps, str(stop), "0"], stdout=-1, text=True
    )
    losses = 20
    for turn in range(1, losses + 1):
        lose(node)
        manager.told("mount_restored", turn)
        time.sleep(0.02)
    stop.touch()
    printed, _ = writer.communicate(timeout=30)
    assert writer.returncode == 0, "the application never saw an error"
    count = int(printed)
    assert count > losses
    hidden = "[name for name in os.listdir(path) if name.startswith('app-')]"

    def all_there() -> bool:
        names = {f"app-{n}.hprof" for n in range(count)}
        return names <= set(node.host.run("os.listdir(pv)", pv=node.pv))

    eventually(all_there, "every file in the volume", within_s=60)
    for n in range(count):
        assert node.in_volume(f"app-{n}.hprof").read_text() == f"dump {n}"
    manager.end()
    lose(node)
    assert node.host.run(hidden, path=f"{node.mnt}/dump") == []


def test_files_from_before_the_first_start_are_rescued(node: Node) -> None:
    app = node.app()
    app.run("open(dumps + '/old.hprof', 'w').write('old')", dumps=node.dumps)
    manager = node.manager()
    (rescued,) = manager.told("file_rescued")
    assert (rescued["path"], rescued["size_bytes"], rescued["to"]) == ("old.hprof", 3, "old.hprof")
    assert node.in_volume("old.hprof").read_text() == "old"


def test_a_dump_that_is_written_across_the_remount_is_rescued_when_it_is_finished(node: Node) -> None:
    """Its JVM has the file open on the node's own disk, below the mount that has come back."""
    app = node.app()
    app.run(
        "hidden = os.open(dumps, os.O_DIRECTORY)\n"  # from now on the volume is there
        "file = open(dumps + '/java_pid1.hprof', 'w'); file.write('first half, '); file.flush()",
        dumps=node.dumps,
    )
    manager = node.manager().ready()
    for number in (
        1,
        2,
    ):  # when the second is rescued, the pass that rescued the first has gone over the open one too
        app.run(
            "os.close(os.open(f'closed-{number}.hprof', os.O_CREAT | os.O_WRONLY, dir_fd=hidden))",
            number=number,
        )
        manager.told("file_rescued", number)
    assert not node.in_volume("java_pid1.hprof").exists()
    app.run("file.write('second half'); file.close()")
    manager.told("file_rescued", 3)
    assert node.in_volume("java_pid1.hprof").read_text() == "first half, second half"


def test_a_name_that_the_volume_has_already_is_not_overwritten(node: Node) -> None:
    app = node.app()
    app.run("open(dumps + '/java_pid1.hprof', 'w').write('on the node')", dumps=node.dumps)
    node.in_volume("java_pid1.hprof").write_text("in the volume")
    (rescued,) = node.manager().told("file_rescued")
    assert node.in_volume("java_pid1.hprof").read_text() == "in the volume"
    assert node.in_volume(rescued["to"]).read_text() == "on the node"
    assert rescued["to"].startswith("java_pid1.rescued-")
    assert rescued["to"].endswith(".hprof")


def test_a_manager_killed_during_a_big_rescue_finishes_it_after_its_restart(node: Node) -> None:
    app = node.app()
    app.run("open(dumps + '/big.hprof', 'wb').write(bytes(range(256)) * 100_000)", dumps=node.dumps)
    container = node.manager_container()
    first = node.manager(container=container)
    eventually(
        lambda: list(node.in_volume(".dumpagent/rescue").glob("*")) or node.in_volume("big.hprof").exists()
    )
    first.end(signal.SIGKILL)
    node.manager(container=container)
    eventually(lambda: node.in_volume("big.hprof").exists())
    assert node.in_volume("big.hprof").read_bytes() == bytes(range(256)) * 100_000
    eventually(lambda: not list(node.in_volume(".dumpagent/rescue").glob("*")))


def test_a_stale_ready_in_the_nodes_own_directory_is_removed(node: Node) -> None:
    """A script of old wrote it there; it would say that a lost mount is well."""
    node.host.run("open(path, 'w').write('ready')", path=f"{node.mnt}/dump/.ready")
    manager = node.manager().ready()
    manager.told("stale_ready_removed")
    manager.end()
    lose(node)
    assert not node.host.run("os.path.exists(path)", path=f"{node.mnt}/dump/.ready")


def test_a_rescue_that_fails_again_and_again_is_told_once_and_its_end_too(node: Node) -> None:
    """The volume has no room: the file stays where it is, safe, until there is some."""
    node.host.run("mount('pv', pv, MS_REMOUNT, 'tmpfs', 'size=1m')", pv=node.pv)
    node.app().run("open(dumps + '/old.hprof', 'wb').write(bytes(1 << 20))", dumps=node.dumps)
    manager = node.manager().ready()
    (failed,) = manager.told("rescue_failed")
    assert failed["error"]
    ticks = set()  # each of them tries the rescue again

    def six_ticks() -> bool:
        ticks.add(manager.heartbeat.stat().st_mtime_ns)
        return len(ticks) > 6

    eventually(six_ticks)
    assert len(manager.events("rescue_failed")) == 1
    node.host.run("mount('pv', pv, MS_REMOUNT, 'tmpfs', 'size=8m')", pv=node.pv)
    manager.told("rescue_recovered")
    assert node.in_volume("old.hprof").stat().st_size == 1 << 20
    assert len(manager.events("rescue_failed")) == len(manager.events("rescue_recovered")) == 1
