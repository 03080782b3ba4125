"""The start of `dumpagent mount`: what cannot work is refused with what to do; as PID 1 it reaps and ends like any other."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.mount.node import Manager, Node, eventually

pytestmark = pytest.mark.slow


def refused(manager: Manager, code: int) -> str:
    """Wait for the end with `code` and give what was said; the mount table must be as before."""
    assert manager.process.wait(20) == code, manager.log_path.read_text()
    said = manager.log_path.read_text()
    assert "Traceback" not in said
    assert "hint:" in said
    return said


def test_a_target_that_is_a_link_is_refused(node: Node) -> None:
    """mount(2) would follow it, and hide something else."""
    node.host.run("os.rmdir(mnt + '/dump'); os.symlink('/etc', mnt + '/dump')", mnt=node.mnt)
    assert "is a symbolic link" in refused(node.manager(), 1)
    assert node.host.mounts("/etc") == []


def test_a_target_that_is_a_file_is_refused(node: Node) -> None:
    node.host.run("os.rmdir(mnt + '/dump'); open(mnt + '/dump', 'w').close()", mnt=node.mnt)
    assert "is not a directory" in refused(node.manager(), 1)


def test_a_target_that_cannot_be_made_is_refused(node: Node) -> None:
    node.host.run(
        "os.rmdir(mnt + '/dump'); mount(None, mnt, MS_REMOUNT | MS_RDONLY, None, 'mode=755')", mnt=node.mnt
    )
    said = refused(node.manager(), 1)
    assert "cannot be made: Read-only file system" in said


def test_a_missing_source_is_refused_and_named(node: Node) -> None:
    said = refused(node.manager("--mount-source", f"{node.base}/nothing"), 2)
    assert "MOUNT_SOURCE" in said
    assert f"{node.base}/nothing" in said


def test_a_missing_node_directory_is_refused(node: Node) -> None:
    said = refused(node.manager("--mount-target", f"{node.base}/nothing/dump"), 2)
    assert "MOUNT_TARGET" in said


@pytest.mark.parametrize("inside", ["", "/inside"])
def test_a_source_within_the_target_is_refused(node: Node, inside: str) -> None:
    node.host.run("os.makedirs(mnt + '/dump/inside')", mnt=node.mnt)
    assert "contain each other" in refused(node.manager("--mount-source", node.target + inside), 2)


def test_without_the_capability_to_mount_it_says_to_run_privileged(node: Node) -> None:
    container = node.manager_container()
    process = container.popen(
        ["setpriv", "--bounding-set=-sys_admin", "--", sys.executable, "-m", "dumpagent", "mount",
         "--mount-source", node.source, "--mount-target", node.target, "--runtime-dir", f"{node.base}/run"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "CAP_SYS_ADMIN" in said
    assert "privileged" in said


def test_where_the_kernel_allows_no_mount_it_says_so(node: Node) -> None:
    """Root of a user namespace has the capability, and still must not mount: rootless containers, hostUsers: false."""
    container = node.manager_container()
    process = container.popen(
        ["unshare", "--user", "--map-root-user", "--", sys.executable, "-m", "dumpagent", "mount",
         "--mount-source", node.source, "--mount-target", node.target, "--runtime-dir", f"{node.base}/run"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "Traceback" not in said
    assert "refuses mount(2)" in said
    assert "user namespaces" in said


def test_a_runtime_directory_that_cannot_be_written_is_refused(node: Node) -> None:
    assert "RUNTIME_DIR" in refused(node.manager("--runtime-dir", "/proc/nothing"), 2)


def test_a_target_outside_a_shared_mount_works_and_is_warned_about(node: Node) -> None:
    """The manifest lacks Bidirectional: this container would be the only one that sees the volume."""
    container = node.manager_container()
    container.run("mount(None, path, MS_PRIVATE)", path=os.path.dirname(node.target))
    manager = node.manager(container=container).ready()
    (warned,) = manager.told("mount_unshared")
    assert "Bidirectional" in warned["hint"]
    assert node.app().mounts(node.dumps) == []


def test_a_source_that_shares_a_peer_group_with_the_target_shows_no_mount_of_its_own(node: Node) -> None:
    """crun leaves the volume shared; without care each bind would also appear inside the volume."""
    container = node.manager_container()
    container.run("mount(None, path, MS_SHARED)", path=node.source)
    node.manager(container=container).ready()
    assert len(container.mounts(node.source)) == 1
    assert len(container.mounts(node.target)) == 1


def test_links_above_the_target_are_resolved(node: Node) -> None:
    """On some nodes /mnt is a link to /var/mnt."""
    os.symlink(os.path.dirname(node.target), node.base / "link")
    manager = node.manager("--mount-target", f"{node.base}/link/dump").ready()
    assert len(manager.container.mounts(node.target)) == 1


def test_mount_mode_loads_nothing_of_the_s3_side(node: Node) -> None:
    words = (
        "import sys, dumpagent.cli.commands.mount\n"
        "print([name for name in ('boto3', 'botocore', 'prometheus_client', 'tenacity', 'isal') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_no_external_program_is_run(node: Node) -> None:
    """The image needs no util-linux: an empty PATH is enough."""
    app = node.app()
    manager = node.manager(env={"PATH": "/nowhere"}).ready()
    node.host.run("umount(path, 2)", path=f"{node.mnt}/dump")
    manager.told("mount_restored")
    app.run("open(dumps + '/a', 'w').close()", dumps=node.dumps)
    assert node.in_volume("a").exists()


def test_as_pid_1_it_reaps_orphans_and_ends_on_sigterm(node: Node) -> None:
    container = node.manager_container()
    words = [
        "unshare", "--pid", "--fork", "--mount-proc", "--propagation", "unchanged", "--",
        sys.executable, "-m", "dumpagent", "mount", "--mount-source", node.source, "--mount-target", node.target,
        "--runtime-dir", f"{node.base}/run", "--mount-check-interval", "0.2", "--log-format", "json",
    ]  # fmt: skip
    log = node.base / "log"
    with log.open("wb") as stderr:
        outer = container.popen(words, stderr=stderr)
    try:
        eventually(lambda: b"write_proven" in log.read_bytes())
        (init,) = [
            int(pid) for pid in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        ]
        assert Path(f"/proc/{init}/status").read_text().split("NSpid:")[1].split()[:2] == [str(init), "1"]
        # A probe that is killed by its timeout leaves children behind, whose parent PID 1 becomes.
        orphan = [
            "nsenter",
            f"--target={init}",
            "--pid",
            "--",
            "sh",
            "-c",
            "for n in 1 2 3; do sleep 2 & done",
        ]
        subprocess.run(orphan, check=True)

        def orphans() -> list[Path]:
            pids = Path(f"/proc/{init}/task/{init}/children").read_text().split()
            found = [Path(f"/proc/{pid}") for pid in pids]
            return [path for path in found if (path / "comm").read_text() == "sleep\n"]

        left = eventually(lambda: found if len(found := orphans()) == 3 else None)
        eventually(
            lambda: not any(path.exists() for path in left), "gone from the process table, not zombies"
        )
        began = time.monotonic()
        os.kill(init, signal.SIGTERM)
        assert outer.wait(10) == 0
        assert time.monotonic() - began < 5
    finally:
        outer.kill()
        outer.wait()


def test_a_new_volume_takes_dumps_of_every_user_without_an_init_container(node: Node) -> None:
    """A file system's top directory is root's, 0755: before .ready stands, every user may write there, as in /tmp."""
    volume = node.in_volume(".")
    volume.chmod(0o755)
    node.manager().ready()
    assert volume.stat().st_mode & 0o7777 == 0o1777
    node.app().run(
        "os.chdir(dumps); os.setgid(10001); os.setuid(10001); open('x.hprof', 'x').close()", dumps=node.dumps
    )
    assert node.in_volume("x.hprof").stat().st_uid == 10001
