"""The heartbeat: the probe reads a whole verdict or none, with the time since boot and nothing of the wall clock."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from dumpagent.errors import BadSettings
from dumpagent.observe.heartbeat import MAGIC, Health, Heartbeat


def read(heartbeat: Heartbeat) -> dict[str, str]:
    first, *lines = Path(heartbeat.path).read_text("utf-8", "surrogateescape").split("\n")
    assert first == MAGIC
    return {name: value for name, _, value in (line.partition(" ") for line in lines) if name}


def test_a_beat_says_who_when_how_long_and_why(tmp_path: Path) -> None:
    heartbeat = Heartbeat(
        f"{tmp_path}/run", "upload", "/mnt/dump", boottime=lambda: 12.5, boot_id=lambda: "b"
    )
    heartbeat.open()
    heartbeat.beat(Health.READY, "scanned 3 files", good_for_s=90)
    assert read(heartbeat) == {
        "mode": "upload",
        "pid": str(os.getpid()),
        "boot": "b",
        "beaten": "12.50",
        "good-for": "90.00",
        "verdict": "ready",
        "volume": "/mnt/dump",
        "reason": "scanned 3 files",
    }


def test_a_daemon_that_has_just_started_is_not_ready(tmp_path: Path) -> None:
    heartbeat = Heartbeat(str(tmp_path), "mount")
    heartbeat.open()
    assert read(heartbeat)["verdict"] == "not-ready"


def test_the_time_is_that_since_boot(tmp_path: Path) -> None:
    heartbeat = Heartbeat(str(tmp_path), "mount")
    heartbeat.beat(Health.READY, "", 1)
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert float(read(heartbeat)["beaten"]) == pytest.approx(uptime, abs=60)


def test_no_text_can_forge_a_line(tmp_path: Path) -> None:
    heartbeat = Heartbeat(str(tmp_path), "mount", "/a b\n\\c\udcff")
    heartbeat.beat(Health.NOT_READY, "it said\nverdict ready", 1)
    said = read(heartbeat)
    assert said["verdict"] == "not-ready"
    assert said["reason"] == "it said verdict ready"
    assert said["volume"] == "/a\\040b\\012\\134c\udcff"


def test_a_reader_never_sees_half_a_beat(tmp_path: Path) -> None:
    heartbeat = Heartbeat(str(tmp_path), "mount")
    heartbeat.open()
    until = time.monotonic() + 0.3

    def beat() -> None:
        while time.monotonic() < until:
            heartbeat.beat(Health.READY, "x" * 1000, 1)

    writer = threading.Thread(target=beat)
    writer.start()
    while time.monotonic() < until:
        assert read(heartbeat).keys() >= {"verdict", "reason"}
    writer.join()


def test_a_directory_that_cannot_be_written_stops_the_start_and_says_what_to_mount(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadSettings, match="RUNTIME_DIR") as refused:
        Heartbeat(f"{tmp_path}/file/run", "mount").open()
    assert "emptyDir" in refused.value.hint


def test_a_clean_end_leaves_nothing_behind(tmp_path: Path) -> None:
    heartbeat = Heartbeat(str(tmp_path), "mount")
    heartbeat.open()
    heartbeat.stop()
    heartbeat.stop()
    assert os.listdir(tmp_path) == []
