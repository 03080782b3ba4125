"""A volume that is full, read-only, dead or hung: each is told by its name, and nothing in the daemon hangs with it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dumpagent.check import problem
from tests.mount.node import Manager, Node, eventually
from tests.mount.volumes import ext4, fuse

pytestmark = pytest.mark.slow


def state_of(pid: int) -> str:
    """Give the letter that ps shows; "" for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def ends_within_two_seconds(manager: Manager) -> bool:
    began = time.monotonic()
    manager.process.send_signal(signal.SIGTERM)
    manager.process.wait(30)
    return time.monotonic() - began < 2


def test_a_full_volume_withdraws_ready_and_keeps_the_mount(node: Node) -> None:
    """The uploader needs the mount to make room; who waits for .ready must not be told that dumps fit."""
    with ext4(node):
        manager = node.manager().ready()
        node.app().run(
            "try:\n"
            "  with open(dumps + '/fill', 'wb', buffering=0) as f:\n"
            "    while f.write(bytes(4096)): pass\n"
            "except OSError: pass",
            dumps=node.dumps,
        )
        manager.told("backend_full")
        eventually(lambda: not node.in_volume(".ready").exists())
        assert len(node.host.mounts(f"{node.mnt}/dump")) == 1
        assert "full" in problem("ready", f"{node.base}/run")
        node.in_volume("fill").unlink()
        manager.told("backend_recovered")
        eventually(node.in_volume(".ready").exists)


def test_a_file_system_that_turns_read_only_is_set_aside_and_comes_back(node: Node) -> None:
    """Dumps that it would refuse are caught by the node's own disk, and rescued once it takes writes again."""
    with ext4(node) as device:
        app = node.app()
        manager = node.manager().ready()
        node.host.run("mount(device, pv, MS_REMOUNT | MS_RDONLY, 'ext4')", device=device, pv=node.pv)
        manager.told("backend_read_only")
        manager.told("mount_set_aside")
        app.run("open(dumps + '/a.hprof', 'w').write('dump')", dumps=node.dumps)
        assert not app.run("os.path.exists(dumps + '/.ready')", dumps=node.dumps)
        assert "read-only" in problem("ready", f"{node.base}/run")
        node.host.run("mount(device, pv, MS_REMOUNT, 'ext4')", device=device, pv=node.pv)
        manager.told("mount_restored")
        manager.told("file_rescued")
        assert node.in_volume("a.hprof").read_text() == "dump"


def test_an_error_of_the_file_system_is_found_though_no_mount_event_tells_of_it(node: Node) -> None:
    """ext4 shuts itself down after an error: statvfs and access look fine, only a write fails."""
    with ext4(node):
        manager = node.manager().ready()
        # EXT4_IOC_SHUTDOWN, no flush of the log. Source: <linux/fs.h>
        node.host.run(
            "import fcntl; fd = os.open(pv, os.O_RDONLY); fcntl.ioctl(fd, 0x8004587D, (2).to_bytes(4, 'little')); os.close(fd)",
            pv=node.pv,
        )
        eventually(lambda: manager.events("backend_dead") or manager.events("backend_read_only"))
        manager.told("mount_set_aside")
        assert node.host.mounts(f"{node.mnt}/dump") == []


def test_a_volume_whose_server_dies_is_set_aside_and_a_new_one_is_bound(node: Node) -> None:
    with fuse(node, node.pv) as server:
        app = node.app()
        container = node.manager_container()
        manager = node.manager(container=container).ready()
        server.kill()
        (dead, *_) = manager.told("backend_dead")
        assert dead["error"] == "Transport endpoint is not connected"
        manager.told("mount_set_aside")
        app.run("open(dumps + '/a.hprof', 'w').write('dump')", dumps=node.dumps)
        assert "nothing is mounted" in problem("live", f"{node.base}/run")
        # A new volume at the same place, as after a restart of the pod.
        container.run("mount('new', path, 0, 'tmpfs', 'mode=777')", path=node.source)
        manager.told("mount_restored")
        manager.told("file_rescued")
        assert app.run("open(dumps + '/a.hprof').read()", dumps=node.dumps) == "dump"


def test_a_volume_that_is_dead_at_the_start_is_refused_with_what_to_do(node: Node) -> None:
    with fuse(node, node.pv) as server:
        container = node.manager_container()
        server.kill()
        manager = node.manager(container=container)
        assert manager.process.wait(20) == 1
        said = manager.log_path.read_text()
        assert "Transport endpoint is not connected" in said
        assert "hint:" in said


def test_a_hung_volume_is_told_and_found_again_and_nothing_hangs_with_it(node: Node) -> None:
    with fuse(node, node.pv):
        app = node.app()
        manager = node.manager().ready()
        hang = Path(f"{node.base}/hang")
        hang.touch()
        manager.told("backend_hung")
        stuck = children(manager.process.pid)
        assert 1 <= len(stuck) <= 2, "the write test, and a rescue if one was under way"
        eventually(lambda: "hung" in problem("ready", f"{node.base}/run"))
        for _ in range(5):
            assert "hung" in problem("ready", f"{node.base}/run")
            time.sleep(0.2)
        assert children(manager.process.pid) == stuck, "nobody else was sent after them"
        assert state_of(manager.process.pid) == "S"
        assert len(node.host.mounts(f"{node.mnt}/dump")) == 1, "who waits for it has lost nothing"
        hang.unlink()
        manager.told("backend_recovered")
        eventually(lambda: "nothing is mounted" in problem("ready", f"{node.base}/run"))
        app.run("open(dumps + '/a.hprof', 'w').write('dump')", dumps=node.dumps)


@pytest.mark.parametrize("unmount", ["true", "false"])
def test_sigterm_ends_it_within_two_seconds_though_the_volume_hangs(node: Node, unmount: str) -> None:
    with fuse(node, node.pv):
        manager = node.manager("--unmount-on-exit", unmount).ready()
        Path(f"{node.base}/hang").touch()
        manager.told("backend_hung")
        assert ends_within_two_seconds(manager)
        assert manager.process.returncode == 0
        assert len(node.host.mounts(f"{node.mnt}/dump")) == (0 if unmount == "true" else 1)
        # The child that cannot die does not keep the node's lock, and the next manager does not hang either.
        second = node.manager()
        second.told("backend_hung")
        Path(f"{node.base}/hang").unlink()
        second.ready()


def test_a_lost_mount_of_a_hung_volume_is_not_bound_again_until_it_answers(node: Node) -> None:
    """Else every application that writes a dump would hang with it."""
    with fuse(node, node.pv):
        app = node.app()
        manager = node.manager().ready()
        hang = Path(f"{node.base}/hang")
        hang.touch()
        manager.told("backend_hung")
        node.host.run("umount(path, 2)", path=f"{node.mnt}/dump")
        manager.told("mount_lost")
        app.run("open(dumps + '/a.hprof', 'w').write('dump')", dumps=node.dumps)
        assert node.host.mounts(f"{node.mnt}/dump") == []
        hang.unlink()
        manager.told("mount_restored")
        manager.told("file_rescued")
        assert app.run("open(dumps + '/a.hprof').read()", dumps=node.dumps) == "dump"


def test_another_volume_in_the_place_of_a_hung_one_is_used_at_once(node: Node) -> None:
    with fuse(node, node.pv):
        container = node.manager_container()
        manager = node.manager(container=container).ready()
        Path(f"{node.base}/hang").touch()
        manager.told("backend_hung")
        container.run("mount('new', path, 0, 'tmpfs', 'mode=777')", path=node.source)
        manager.told("mount_restored")
        manager.told("write_proven", 2)


def test_a_probe_that_meets_a_volume_as_it_begins_to_hang_answers_within_its_second(node: Node) -> None:
    with fuse(node, node.pv):
        manager = node.manager("--mount-check-interval", "3600").ready()

        def check() -> tuple[int, str, float]:
            began = time.monotonic()
            asked = manager.container.popen(
                [sys.executable, "-m", "dumpagent", "check"],
                stderr=subprocess.PIPE, text=True, env={**os.environ, "RUNTIME_DIR": f"{node.base}/run"},
            )  # fmt: skip
            _, said = asked.communicate(timeout=30)
            return asked.returncode, said, time.monotonic() - began

        well = [check() for _ in range(3)]
        assert [code for code, _, _ in well] == [0, 0, 0]
        Path(f"{node.base}/hang").touch()
        code, said, took_s = check()
        assert code == 1
        assert "does not answer: the volume hangs" in said
        # The kubelet gives a probe one second; what this machine needs to start one comes on top.
        assert took_s < 1 + max(seconds for _, _, seconds in well)


def test_wait_tells_of_a_hung_volume_though_others_mount_all_the_time(node: Node) -> None:
    """Each of their mounts wakes it; none is a reason to send another child after the first."""
    with fuse(node, node.pv):
        app = node.app()
        node.host.run("mount(pv, path, MS_BIND); os.mkdir(other)", pv=node.pv, path=f"{node.mnt}/dump", other=f"{node.mnt}/other")  # fmt: skip
        Path(f"{node.base}/hang").touch()
        waiting = app.popen(
            [sys.executable, "-m", "dumpagent", "wait", "--dump-root", node.dumps, "--timeout", "12s"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert waiting.stderr
        waiting.stderr.readline()
        while waiting.poll() is None:
            assert len(children(waiting.pid)) <= 1
            node.host.run("mount(path, other, MS_BIND); umount(other, 2)", path=node.mnt, other=f"{node.mnt}/other")  # fmt: skip
            time.sleep(0.05)
        assert "does not answer: the volume hangs" in waiting.stderr.readline()


def test_a_frozen_file_system_counts_as_hung(node: Node) -> None:
    """A storage snapshot freezes a volume; writers are in an uninterruptible wait meanwhile."""
    freeze = "import fcntl; fd = os.open(pv, os.O_RDONLY); fcntl.ioctl(fd, {}, 0); os.close(fd)"
    with ext4(node):
        manager = node.manager().ready()
        node.host.run(freeze.format("0xC0045877"), pv=node.pv)  # FIFREEZE
        try:
            manager.told("backend_hung")
            assert "D" in [state_of(pid) for pid in children(manager.process.pid)]
        finally:
            node.host.run(freeze.format("0xC0045878"), pv=node.pv)  # FITHAW
        manager.told("backend_recovered")
        assert ends_within_two_seconds(manager)
