"""`dumpagent check` beside a running `dumpagent upload`: what the uploader's own probes hear."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import children
from tests.mount.container import Container
from tests.mount.node import eventually

pytestmark = pytest.mark.slow
NO_STORE = "http://127.0.0.1:1"


class Uploader:
    """An upload daemon in a mount namespace where `root` is a mounted volume; its store never answers."""

    def __init__(self, base: Path) -> None:
        self.root, self.runtime_dir = base / "mnt" / "dump", base / "run"
        self.root.mkdir(parents=True)
        self.container = Container()
        self.container.run("mount('volume', root, 0, 'tmpfs', 'mode=777,size=16m')", root=str(self.root))
        self.container.run("open(root + '/.ready', 'w').close()", root=str(self.root))
        self.environment = {
            **os.environ, "S3_ENDPOINT_URL": NO_STORE, "S3_BUCKET": "dumps", "DUMP_ROOT": str(self.root),
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "RUNTIME_DIR": str(self.runtime_dir), "WATCH_INTERVAL": "0.3",
        }  # fmt: skip
        self.process = self.container.popen(
            [sys.executable, "-m", "dumpagent", "upload"], env=self.environment, stderr=subprocess.DEVNULL
        )

    def check(self, question: str) -> tuple[int, str]:
        """Give the probe's exit code and what it says."""
        probe = self.container.popen(
            [sys.executable, "-m", "dumpagent", "check", question],
            env=self.environment, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _, said = probe.communicate(timeout=20)
        return probe.returncode, said

    def close(self) -> None:
        children.end(self.process)
        self.container.close()


@pytest.fixture
def uploader(tmp_path: Path) -> Iterator[Uploader]:
    running = Uploader(tmp_path)
    yield running
    running.close()


def test_an_uploader_whose_loop_turns_is_ready_and_alive_even_with_no_store(uploader: Uploader) -> None:
    """A restart mends no store, and a dump on the volume waits safely."""
    eventually(lambda: uploader.check("ready")[0] == 0)
    assert uploader.check("live") == (0, "")


def test_an_uploader_without_its_volume_is_alive_but_not_ready(uploader: Uploader) -> None:
    eventually(lambda: uploader.check("ready")[0] == 0)
    uploader.container.run("umount(root, 2)", root=str(uploader.root))
    code, said = uploader.check("ready")
    assert (code, "nothing is mounted at" in said) == (1, True)
    assert uploader.check("live") == (0, "")


def test_after_a_stop_no_heartbeat_is_left(uploader: Uploader) -> None:
    eventually(lambda: uploader.check("live")[0] == 0)
    uploader.process.send_signal(signal.SIGTERM)
    uploader.process.wait(20)
    assert os.listdir(uploader.runtime_dir) == []
    assert "none runs here" in uploader.check("live")[1]
