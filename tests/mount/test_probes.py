"""`dumpagent check` and `dumpagent wait` on a simulated node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.mount.container import Container
from tests.mount.node import Manager, Node, eventually

pytestmark = pytest.mark.slow


def check(node: Node, manager: Manager, question: str = "ready") -> subprocess.CompletedProcess[str]:
    process = manager.container.popen(
        [sys.executable, "-m", "dumpagent", "check", question],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "RUNTIME_DIR": f"{node.base}/run"},
    )  # fmt: skip
    _, said = process.communicate(timeout=20)
    return subprocess.CompletedProcess([], process.returncode, "", said)


def start_waiting(node: Node, container: Container, *flags: str) -> subprocess.Popen[str]:
    return container.popen(
        [sys.executable, "-m", "dumpagent", "wait", "--dump-root", node.dumps, *flags],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_manager_with_a_proven_mount_is_ready_and_alive(node: Node) -> None:
    manager = node.manager().ready()
    assert check(node, manager, "ready").returncode == 0
    assert check(node, manager, "live").returncode == 0


def test_without_ready_the_manager_is_not_ready_and_the_path_is_named(node: Node) -> None:
    manager = node.manager("--mount-check-interval", "3600").ready()
    node.in_volume(".ready").unlink()
    said = check(node, manager)
    assert said.returncode == 1
    assert f"there is no {node.target}/.ready" in said.stderr
    assert check(node, manager, "live").returncode == 0


def test_a_killed_manager_is_neither_ready_nor_alive_once_its_word_is_old(node: Node) -> None:
    manager = node.manager().ready()
    manager.process.send_signal(signal.SIGSTOP)  # a loop that does not turn looks the same
    eventually(lambda: "has not turned" in check(node, manager, "live").stderr, within_s=60)
    assert check(node, manager, "ready").returncode == 1
    manager.process.send_signal(signal.SIGCONT)
    eventually(lambda: check(node, manager, "ready").returncode == 0)


def test_a_mount_that_cannot_come_back_is_seen_by_the_mount_table_at_once(node: Node) -> None:
    manager = node.manager().ready()
    manager.process.send_signal(signal.SIGSTOP)
    node.host.run("umount(path, 2)", path=f"{node.mnt}/dump")
    for question in ("ready", "live"):
        said = check(node, manager, question)
        assert said.returncode == 1
        assert "nothing is mounted at" in said.stderr


def test_wait_goes_on_the_moment_that_the_volume_is_ready(node: Node) -> None:
    """It does not poll the mount; what it waits for is said at once."""
    app = node.app()
    waiting = start_waiting(node, app)
    assert waiting.stderr
    assert "nothing is mounted at" in waiting.stderr.readline()
    manager = node.manager().ready()
    assert waiting.wait(10) == 0
    assert manager.process.poll() is None
    assert start_waiting(node, app).wait(20) == 0, "ready already"


def test_wait_is_not_content_with_a_mount_that_is_not_ready(node: Node) -> None:
    app = node.app()
    node.host.run("mount(pv, path, MS_BIND)", pv=node.pv, path=f"{node.mnt}/dump")
    waiting = start_waiting(node, app)
    assert waiting.stderr
    lines = iter(waiting.stderr.readline, "")
    assert ".ready" in next(lines)
    assert waiting.poll() is None
    node.in_volume(".ready").write_text("ready")
    assert waiting.wait(10) == 0


def test_wait_gives_up_after_its_timeout_and_says_what_was_missing(node: Node) -> None:
    began = time.monotonic()
    waiting = start_waiting(node, node.app(), "--timeout", "300ms")
    _, said = waiting.communicate(timeout=20)
    assert waiting.returncode == 1
    assert time.monotonic() - began >= 0.3
    assert "not ready after 0.3 s: nothing is mounted at" in said


def test_wait_says_every_30_s_what_it_waits_for(node: Node) -> None:
    """Whoever reads the log of an init container sees that it lives, and what it lacks."""
    waiting = start_waiting(node, node.app(), "--timeout", "31s")
    _, said = waiting.communicate(timeout=90)
    first, second, last = said.splitlines()
    assert first.startswith("dumpagent wait: waiting: nothing is mounted at")
    assert second.startswith("dumpagent wait: waiting for 30 s: nothing is mounted at")
    assert last.startswith("dumpagent wait: not ready after 31 s: nothing is mounted at")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_wait_ends_at_once_when_the_pod_is_deleted(node: Node, number: int) -> None:
    waiting = start_waiting(node, node.app())
    assert waiting.stderr
    waiting.stderr.readline()
    waiting.send_signal(number)
    _, said = waiting.communicate(timeout=5)
    assert waiting.returncode == 1
    assert "stopped by a signal" in said
