"""`dumpagent mount` on a simulated node: the volume stays where applications write, whatever happens to the mount."""

from __future__ import annotations

import math
import os
import signal
import time
from pathlib import Path

import pytest

from dumpagent.kernel.flock import FileLock
from dumpagent.kernel.owned import BUSY, STATE
from tests.mount.container import MS_BIND, MS_PRIVATE, MS_RDONLY, MS_REMOUNT, MS_UNBINDABLE, Container
from tests.mount.node import Node, eventually

pytestmark = pytest.mark.slow  # each starts a manager and four namespaces


def write(app: Container, path: str, text: str = "dump") -> None:
    app.run("open(path, 'w').write(text)", path=path, text=text)


def writes_reach_the_volume(node: Node, app: Container, name: str) -> None:
    write(app, f"{node.dumps}/{name}")
    assert node.in_volume(name).read_text() == "dump"


def test_an_application_sees_the_volume_whether_it_started_before_or_after_the_bind(node: Node) -> None:
    before = node.app()
    node.manager().ready()
    after = node.app()
    writes_reach_the_volume(node, before, "before.hprof")
    writes_reach_the_volume(node, after, "after.hprof")
    assert node.in_volume(".ready").read_text() == "ready"


def test_the_target_directory_is_made_and_any_user_may_write_to_it(tmp_path: Path) -> None:
    with Node(tmp_path, node_dir=False) as node:
        node.manager().ready().end()
        node.host.run("umount(path)", path=f"{node.mnt}/dump")
        assert node.host.run("os.stat(path).st_mode & 0o7777", path=f"{node.mnt}/dump") == 0o1777


@pytest.mark.parametrize("flags", [0, 2], ids=["umount", "umount -l"])
def test_a_lost_mount_comes_back_for_all_applications(node: Node, flags: int) -> None:
    before = node.app()
    manager = node.manager().ready()
    after = node.app()

    def unmounted() -> bool:
        try:
            node.host.run("umount(path, flags)", path=f"{node.mnt}/dump", flags=flags)
        except RuntimeError as error:
            if "busy" in str(error):  # a write test is under way
                return False
            raise
        return True

    for turn in range(1, 4):
        eventually(unmounted)
        manager.told("mount_restored", turn)
        writes_reach_the_volume(node, before, f"before-{turn}.hprof")
        writes_reach_the_volume(node, after, f"after-{turn}.hprof")
    assert len(manager.events("mount_lost")) == 3
    assert len(node.host.mounts(f"{node.mnt}/dump")) == 1


def test_the_mount_is_restored_from_whatever_namespace_took_it(node: Node) -> None:
    """An application cannot take it from the node; the manager's own container can."""
    app = node.app()
    container = node.manager_container()
    manager = node.manager(container=container).ready()
    app.run("umount(path, 2)", path=node.dumps)
    container.run("umount(path, 2)", path=node.target)
    manager.told("mount_restored")
    writes_reach_the_volume(node, app, "a.hprof")


def test_a_wrong_source_mounted_over_the_volume_is_removed(node: Node) -> None:
    app = node.app()
    manager = node.manager().ready()
    node.host.run("mount('evil', path, 0, 'tmpfs')", path=f"{node.mnt}/dump")
    assert manager.told("mount_restored")[0]["finding"] == "another"
    (wrong,) = manager.events("mount_wrong")
    assert [mount.split()[:2] for mount in wrong["stack"]] == [["tmpfs", "pv"], ["tmpfs", "evil"]]
    assert "find who" in wrong["hint"]
    writes_reach_the_volume(node, app, "a.hprof")
    assert len(app.mounts(node.dumps)) == 1


def test_a_second_layer_of_the_right_volume_is_taken_off(node: Node) -> None:
    app = node.app()
    manager = node.manager().ready()
    node.host.run("mount(pv, path, MS_BIND)", pv=node.pv, path=f"{node.mnt}/dump")
    assert manager.told("mount_restored")[0]["finding"] == "stacked"
    assert len(node.host.mounts(f"{node.mnt}/dump")) == 1
    writes_reach_the_volume(node, app, "a.hprof")


def test_a_mount_made_read_only_is_writable_again(node: Node) -> None:
    app = node.app()
    container = node.manager_container()
    manager = node.manager(container=container).ready()
    container.run("mount(None, path, flags)", path=node.target, flags=MS_REMOUNT | MS_BIND | MS_RDONLY)
    assert manager.told("mount_restored")[0]["finding"] == "read-only"
    writes_reach_the_volume(node, app, "a.hprof")


def test_twenty_kills_and_restarts_never_stack_a_mount(node: Node) -> None:
    """Each start adopts what the last one left; applications never lose the volume."""
    app = node.app()
    container = node.manager_container()
    for turn in range(20):
        manager = node.manager(container=container).ready()
        assert [e["event"] for e in manager.events() if e["event"] in ("mount_bound", "mount_adopted")] == [
            "mount_adopted" if turn else "mount_bound"
        ]
        manager.end(signal.SIGKILL)
        assert len(node.host.mounts(f"{node.mnt}/dump")) == 1
        writes_reach_the_volume(node, app, f"{turn}.hprof")


def test_stacks_that_an_older_script_has_left_are_cleared_at_the_start(node: Node) -> None:
    app = node.app()
    for _ in range(5):
        node.host.run("mount(pv, path, MS_BIND)", pv=node.pv, path=f"{node.mnt}/dump")
    node.host.run("mount('evil', path, 0, 'tmpfs')", path=f"{node.mnt}/dump")
    node.manager().ready()
    assert len(node.host.mounts(f"{node.mnt}/dump")) == 1
    writes_reach_the_volume(node, app, "a.hprof")


def test_another_volume_after_a_restart_replaces_the_old_one(node: Node) -> None:
    app = node.app()
    node.manager().ready().end(signal.SIGKILL)
    node.host.run("mount('new', pv, 0, 'tmpfs', 'mode=777')", pv=node.pv)
    manager = node.manager().ready()
    assert manager.told("mount_restored")[0]["finding"] == "another"
    writes_reach_the_volume(node, app, "a.hprof")
    assert len(app.mounts(node.dumps)) == 1


def test_another_volume_under_a_running_manager_replaces_the_old_one(node: Node) -> None:
    app = node.app()
    container = node.manager_container()
    manager = node.manager(container=container).ready()
    container.run("mount('new', path, 0, 'tmpfs', 'mode=777')", path=node.source)
    manager.told("mount_restored")
    manager.told("write_proven", 2)
    write(app, f"{node.dumps}/a.hprof")
    assert container.run("open(path).read()", path=f"{node.source}/a.hprof") == "dump"


def test_a_remount_that_keeps_failing_is_tried_ever_more_seldom_and_told_once(node: Node) -> None:
    """A volume made unbindable takes every write test, but the kernel refuses to bind it."""
    app = node.app()
    container = node.manager_container()
    manager = node.manager(container=container).ready()
    container.run("mount(None, source, flag)", source=node.source, flag=MS_UNBINDABLE)
    node.host.run("umount(path, 2)", path=f"{node.mnt}/dump")
    manager.told("remount_failed")
    node.host.run("os.mkdir(path)", path=f"{node.mnt}/elsewhere")
    until = time.monotonic() + 5
    while time.monotonic() < until:  # each is a wake-up, and a temptation to try again
        node.host.run("mount(pv, path, MS_BIND); umount(path, 2)", pv=node.pv, path=f"{node.mnt}/elsewhere")
        time.sleep(0.02)
    (failed,) = manager.events("remount_failed")
    assert failed["error"] == os.strerror(22)
    assert "verdict ready" not in manager.heartbeat.read_text()
    container.run("mount(None, source, flag)", source=node.source, flag=MS_PRIVATE)
    (recovered,) = manager.told("remount_recovered")
    # After the n-th failure it waits for 0.05 * 2^n s, which bounds how many fit into the time that it took.
    assert 3 <= recovered["times"] <= math.log2(recovered["seconds"] / 0.05 + 2)
    writes_reach_the_volume(node, app, "a.hprof")
    assert len(manager.events("mount_lost")) == len(manager.events("mount_restored")) == 1


@pytest.mark.parametrize("name", ["with blank", "new\nline", "back\\slash", "tab\there", "ünï", "\\040"])
def test_any_name_of_the_directories_works(tmp_path: Path, name: str) -> None:
    base = tmp_path / name
    base.mkdir()
    with Node(base) as node:
        app = node.app()
        manager = node.manager().ready()
        node.host.run("umount(path, 2)", path=f"{node.mnt}/dump")
        manager.told("mount_restored")
        writes_reach_the_volume(node, app, "a b\n\\.hprof")


def test_five_thousand_other_mounts_do_not_confuse_it(node: Node) -> None:
    app = node.app()
    container = node.manager_container()
    container.run(
        "os.makedirs(base + '/many'); mount('many', base + '/many', 0, 'tmpfs')\n"
        "for n in range(5000):\n"
        "    path = f'{base}/many/{n}'; os.mkdir(path); mount(source, path, MS_BIND)",
        base=str(node.base), source=node.source,
    )  # fmt: skip
    manager = node.manager(container=container).ready()
    for turn in range(1, 4):
        node.host.run("umount(path, 2)", path=f"{node.mnt}/dump")
        manager.told("mount_restored", turn)
        writes_reach_the_volume(node, app, f"{turn}.hprof")
    assert not manager.events("table_unreadable")


def test_two_managers_on_one_node_do_not_fight(node: Node) -> None:
    """The second says who is in its way and ends; after the first is gone, it can begin."""
    first = node.manager().ready()
    second = node.manager()
    assert second.process.wait(20) == 1
    assert "another `dumpagent mount` on this node" in second.log_path.read_text()
    assert len(node.host.mounts(f"{node.mnt}/dump")) == 1
    first.end(signal.SIGKILL)
    node.manager().ready()


def test_an_application_without_propagation_keeps_what_it_saw_at_its_start(node: Node) -> None:
    """Why applications must mount /mnt with HostToContainer: the others never see the volume, or never the next one."""
    early = node.app("None")
    manager = node.manager().ready()
    late = node.app("None", path=f"{node.mnt}")
    write(early, f"{node.dumps}/early.hprof")
    writes_reach_the_volume(node, late, "late.hprof")
    # Not visible there, but not lost either: the next look at the node's own directory finds it.
    manager.told("file_rescued")
    assert node.in_volume("early.hprof").read_text() == "dump"


def test_a_deleted_ready_is_put_back(node: Node) -> None:
    node.manager().ready()
    node.in_volume(".ready").unlink()
    eventually(node.in_volume(".ready").exists)


def test_a_clean_end_keeps_the_mount_and_ready_by_default(node: Node) -> None:
    app = node.app()
    manager = node.manager().ready()
    assert manager.end(signal.SIGTERM) == 0
    writes_reach_the_volume(node, app, "a.hprof")
    assert node.in_volume(".ready").exists()
    assert [e["event"] for e in manager.events()][-1] == "agent_stopped"
    assert os.listdir(node.base / "run") == []


def test_the_mount_stays_while_the_uploader_has_dumps_to_store(node: Node) -> None:
    """A drained node: the volume is detached behind the manager, so the uploader comes first."""
    manager = node.manager("--unmount-on-exit", "true", "--shutdown-wait", "30s").ready()
    busy = FileLock(str(node.in_volume(f"{STATE}/{BUSY}")))
    busy.set(True)
    manager.process.send_signal(signal.SIGTERM)
    manager.told("drain_began")
    time.sleep(1)
    assert node.host.mounts(f"{node.mnt}/dump") != []
    busy.set(False)
    assert manager.process.wait(10) == 0
    assert node.host.mounts(f"{node.mnt}/dump") == []
    assert "drain_ended" in [event["event"] for event in manager.events()]


def test_the_mount_does_not_stay_for_longer_than_it_may(node: Node) -> None:
    manager = node.manager("--unmount-on-exit", "true", "--shutdown-wait", "1s").ready()
    busy = FileLock(str(node.in_volume(f"{STATE}/{BUSY}")))
    busy.set(True)
    assert manager.end(signal.SIGTERM) == 0
    assert node.host.mounts(f"{node.mnt}/dump") == []
    assert "drain_cut" in [event["event"] for event in manager.events()]
    busy.set(False)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_unmount_on_exit_takes_ready_and_the_mount_away(node: Node, number: int) -> None:
    app = node.app()
    manager = node.manager("--unmount-on-exit", "true").ready()
    held = app.popen(
        ["sh", "-c", f"exec 3>{node.dumps}/open.hprof; echo; read x; echo dump >&3"], stdin=-1, stdout=-1
    )
    assert held.stdout
    held.stdout.readline()
    assert manager.end(number) == 0
    assert not node.in_volume(".ready").exists()
    assert node.host.mounts(f"{node.mnt}/dump") == []
    assert app.mounts(node.dumps) == []
    held.communicate(b"\n")
    assert node.in_volume("open.hprof").read_text() == "dump\n", "an open file goes on to the volume"
