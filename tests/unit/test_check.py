"""`dumpagent check`: the daemon's own fresh word, the mount and .ready; never more imports than `os` and `sys`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dumpagent.check import problem
from dumpagent.probes.heartbeat import Health, Heartbeat


def run(*words: str, runtime_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dumpagent", "check", *words],
        capture_output=True, text=True, env={**os.environ, "RUNTIME_DIR": str(runtime_dir)},
    )  # fmt: skip


def test_it_loads_os_and_sys_and_nothing_else(tmp_path: Path) -> None:
    """What a bare Python has loaded anyway does not count; everything else would be paid for every few seconds."""
    words = "import sys; before = set(sys.modules); import os, dumpagent.__main__ as m; sys.argv = ['dumpagent', 'check']\n"
    words += "try: m.main()\nexcept SystemExit as end: print(end.code, sorted(set(sys.modules) - before))"
    Heartbeat(str(tmp_path), "upload").beat(Health.READY, "", 60)
    for path in (tmp_path, tmp_path / "nothing"):
        said = subprocess.run(
            [sys.executable, "-I", "-c", words],
            capture_output=True,
            text=True,
            env={"RUNTIME_DIR": str(path)},
        )
        code, _, modules = said.stdout.partition(" ")
        assert modules.strip() == "['dumpagent', 'dumpagent.__main__', 'dumpagent.check']"
        assert code == ("0" if path == tmp_path else "1")


def test_no_daemon_is_not_ready_and_says_so_in_one_line(tmp_path: Path) -> None:
    said = run(runtime_dir=tmp_path)
    assert said.returncode == 1
    assert said.stdout == ""
    assert said.stderr.count("\n") == 1
    assert "no daemon has left a heartbeat" in said.stderr
    assert str(tmp_path) in said.stderr


@pytest.mark.parametrize("question", ["ready", "live"])
def test_a_fresh_word_of_a_ready_daemon_is_believed(tmp_path: Path, question: str) -> None:
    Heartbeat(str(tmp_path), "upload").beat(Health.READY, "", good_for_s=60)
    assert run(question, runtime_dir=tmp_path).returncode == 0


def test_a_daemon_that_is_not_ready_is_alive_and_its_reason_is_shown(tmp_path: Path) -> None:
    Heartbeat(str(tmp_path), "upload").beat(Health.NOT_READY, "the store refuses us", good_for_s=60)
    said = run("ready", runtime_dir=tmp_path)
    assert (said.returncode, said.stderr) == (
        1,
        "dumpagent check: not ready: upload: the store refuses us\n",
    )
    assert run("live", runtime_dir=tmp_path).returncode == 0


@pytest.mark.parametrize("question", ["ready", "live"])
def test_a_word_that_is_too_old_counts_for_nothing(tmp_path: Path, question: str) -> None:
    uptime_s = float(Path("/proc/uptime").read_text().split()[0])
    Heartbeat(str(tmp_path), "upload", boottime=lambda: uptime_s - 100).beat(Health.READY, "", good_for_s=40)
    assert "has not turned for 10" in problem(question, str(tmp_path))


@pytest.mark.parametrize("question", ["ready", "live"])
def test_a_word_from_before_the_last_boot_counts_for_nothing(tmp_path: Path, question: str) -> None:
    Heartbeat(str(tmp_path), "upload", boot_id=lambda: "another").beat(Health.READY, "", good_for_s=1e9)
    assert "before the last boot" in problem(question, str(tmp_path))
    Heartbeat(str(tmp_path), "upload", boottime=lambda: 1e9).beat(Health.READY, "", good_for_s=1e9)
    assert "before the last boot" in problem(question, str(tmp_path))


@pytest.mark.parametrize(
    "rubbish", ["", "x", "dumpagent-heartbeat 2\nverdict ready\n", "\0" * 100, "mode\nboot\n"]
)
def test_rubbish_is_never_ready(tmp_path: Path, rubbish: str) -> None:
    (tmp_path / "mount.heartbeat").write_text(rubbish)
    assert "not a heartbeat" in problem("live", str(tmp_path))


def test_a_manager_whose_volume_is_not_mounted_is_neither_ready_nor_alive(tmp_path: Path) -> None:
    Heartbeat(str(tmp_path), "mount", str(tmp_path / "a b")).beat(Health.READY, "", good_for_s=60)
    for question in ("ready", "live"):
        assert "nothing is mounted" in problem(question, str(tmp_path))


def test_an_uploader_whose_volume_is_not_mounted_is_alive_but_not_ready(tmp_path: Path) -> None:
    """A restart of the uploader mounts nothing."""
    Heartbeat(str(tmp_path), "upload", str(tmp_path)).beat(Health.READY, "", good_for_s=60)
    assert "nothing is mounted" in problem("ready", str(tmp_path))
    assert problem("live", str(tmp_path)) == ""


def test_two_daemons_in_one_place_must_both_be_well(tmp_path: Path) -> None:
    Heartbeat(str(tmp_path), "upload").beat(Health.READY, "", good_for_s=60)
    assert problem("ready", str(tmp_path)) == ""
    Heartbeat(str(tmp_path), "mount").beat(Health.NOT_READY, "no", good_for_s=60)
    assert problem("ready", str(tmp_path)) == "mount: no"


@pytest.mark.parametrize(
    "words", [["--help"], ["ready", "--help"], ["--runtime-dir", "/tmp/x"], ["never"], ["--bad"]]
)
def test_every_other_word_is_answered_by_the_full_command_line(tmp_path: Path, words: list[str]) -> None:
    said = run(*words, runtime_dir=tmp_path)
    if "--help" in words:
        assert said.returncode == 0
        assert "RUNTIME_DIR" in said.stdout
    elif "--runtime-dir" in words:
        assert (said.returncode, "/tmp/x" in said.stderr) == (1, True)
    else:
        assert said.returncode == 2
        assert "Usage" in said.stderr
