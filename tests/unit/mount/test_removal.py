"""Uninstalling removes the node's directory only when nothing is lost with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dumpagent.mount.removal import remove_node_directory


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Give the node's dump directory with the agent's own state in it."""
    (tmp_path / "dump" / ".dumpagent" / "receipts").mkdir(parents=True)
    (tmp_path / "dump" / ".dumpagent" / "receipts" / "1.json").write_text("{}")
    return tmp_path / "dump"


def test_a_directory_with_nothing_but_our_state_goes(target: Path) -> None:
    assert remove_node_directory(str(target)) == ""
    assert not target.exists()


def test_a_directory_that_is_gone_already_is_no_fault(target: Path) -> None:
    assert remove_node_directory(str(target / "nothing")) == ""


def test_a_dump_keeps_the_directory_and_the_state(target: Path) -> None:
    (target / "java_pid1.hprof").write_text("x")
    assert "'java_pid1.hprof'" in remove_node_directory(str(target))
    assert (target / "java_pid1.hprof").exists()
    assert (target / ".dumpagent" / "receipts" / "1.json").exists()


def test_a_link_is_followed_nowhere(target: Path, tmp_path: Path) -> None:
    """What an application put in the place of our state is removed as what it is."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("x")
    link = tmp_path / "link"
    link.symlink_to(victim)
    assert "cannot be removed" in remove_node_directory(str(link))
    (target / ".ready").symlink_to(victim)
    assert remove_node_directory(str(target)) == ""
    assert (victim / "file").exists()


def test_the_command_waits_until_the_last_dump_is_gone_and_stays(target: Path) -> None:
    """As the pod of node-cleanup.yaml runs it."""
    dump = target / "a.hprof"
    dump.write_text("x")
    words = [sys.executable, "-m", "dumpagent", "cleanup", "--stay", "--mount-target", str(target)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stdout is not None
        assert "still holds 'a.hprof'" in process.stderr.readline()
        dump.unlink()
        assert "is gone from this node" in process.stdout.readline()
        assert not target.exists()
        time.sleep(0.1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
