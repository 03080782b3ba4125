"""The heartbeat: the probe reads a whole verdict or none, with the time since boot and nothing of the wall clock."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from dumpagent.errors import BadSettings
from dumpagent.observe.events import Event
from dumpagent.probes.heartbeat import MAGIC, Health, Heartbeat, Pulse


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


def test_a_daemon_that_was_killed_is_told_by_the_next_one_in_its_pod(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(event: Event, /) -> None:
        told.append(
            " ".join(str(event.fields().get(name, event.name)) for name in ("name", "reason", "hint"))
        )

    first = Pulse(Heartbeat(str(tmp_path), "upload", boottime=lambda: 100.0), tell, good_for_s=90)
    first.begin()
    assert told == [], "nobody was there before"
    # In a container that is started again the new one has the same pid, as here.
    Pulse(Heartbeat(str(tmp_path), "upload", boottime=lambda: 130.0), tell, good_for_s=90).begin()
    (line,) = told
    assert f"agent_killed process {os.getpid()}, 30 s after its last word, was gone: killed" in line
    assert "OOMKilled" in line


@pytest.mark.parametrize("why", ["stopped", "other boot", "alive", "rubbish"])
def test_no_daemon_is_called_killed_that_was_not(why: str, tmp_path: Path) -> None:
    before = Heartbeat(str(tmp_path), "upload", boot_id=lambda: "this")
    before.open()
    path = tmp_path / "upload.heartbeat"
    if why == "stopped":
        before.stop()
    elif why == "alive":
        path.write_text(path.read_text().replace(f"pid {os.getpid()}", "pid 1"))
    elif why == "rubbish":
        path.write_bytes(b"\xff\n\0 no heartbeat")
    boot = "another" if why == "other boot" else "this"
    assert Heartbeat(str(tmp_path), "upload", boot_id=lambda: boot).of_one_that_was_killed() == ""
