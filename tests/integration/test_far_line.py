"""A dump comes whole over a long line in several ranges at once, whatever the store makes of them and whatever cuts it off."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness import children
from tests.harness.hprof import Maker
from tests.harness.stores.far import FarStore

pytestmark = [pytest.mark.slow]
MIB = 1 << 20
_PLAIN = Maker().dump(segments=45, segment_bytes=MIB)
# Random bytes instead of zeros in the arrays, so that a shifted piece would be noticed.
DUMP = _PLAIN.replace(bytes(MIB - 18), random.Random(7).randbytes(MIB - 18))


def start(far: FarStore, folder: Path, *words: str) -> subprocess.Popen[str]:
    return children.start(
        [sys.executable, "-m", "dumpagent", "get", *(words or ("x.hprof",))],
        cwd=folder,
        env={**os.environ, **far.environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def get(far: FarStore, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    running = start(far, folder, *words)
    out, err = running.communicate(timeout=120)
    return subprocess.CompletedProcess(words, running.returncode, out, err)


def wait_for_bytes(part: Path, size_bytes: int) -> None:
    until = time.monotonic() + 60
    while not (part.exists() and part.stat().st_blocks * 512 >= size_bytes):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def part_in(folder: Path) -> Path:
    until = time.monotonic() + 60
    while not (found := list(folder.glob("*.part"))):
        assert time.monotonic() < until, "no part file came"
        time.sleep(0.01)
    return found[0]


def ended_after(size_bytes: int, far: FarStore, folder: Path, number: signal.Signals) -> Path:
    """Begin a fetch, end it by a signal once so much has come, and give its part file."""
    first = start(far, folder)
    part = part_in(folder)
    wait_for_bytes(part, size_bytes)
    first.send_signal(number)
    first.communicate(timeout=30)
    return part


def test_a_far_store_is_read_in_several_ranges_at_once_and_a_near_one_in_one(tmp_path: Path) -> None:
    with FarStore(DUMP, piece_s=0.01).serving() as far:
        fetched = get(far, tmp_path)
        assert fetched.returncode == 0, fetched.stderr
        assert "checksum verified" in fetched.stderr
        assert far.most_at_once >= 4
        assert (tmp_path / "x.hprof").read_bytes() == DUMP
        assert [path.name for path in tmp_path.iterdir()] == ["x.hprof"]


def test_who_reads_is_recognised_in_the_stores_access_log_by_the_user_agent(tmp_path: Path) -> None:
    with FarStore(DUMP).serving() as far:
        assert get(far, tmp_path).returncode == 0
        assert far.agents
        assert all("dumpagent/" in agent for agent in far.agents), far.agents


@pytest.mark.parametrize("way", ["no ranges", "no range end", "short"])
def test_a_store_that_has_its_own_idea_of_ranges_costs_time_and_no_byte(tmp_path: Path, way: str) -> None:
    with FarStore(DUMP, way=way).serving() as far:
        fetched = get(far, tmp_path)
        assert fetched.returncode == 0, fetched.stderr
        assert (tmp_path / "x.hprof").read_bytes() == DUMP


def test_a_dump_that_is_replaced_between_two_ranges_is_never_glued_together(tmp_path: Path) -> None:
    """The store ignores If-Match; its ETag tells."""
    with FarStore(DUMP, way="replaced").serving() as far:
        fetched = get(far, tmp_path)
        assert fetched.returncode == 1
        assert "was replaced" in fetched.stderr
        assert list(tmp_path.iterdir()) == []


def test_an_answer_without_end_does_not_fill_the_disk(tmp_path: Path) -> None:
    with FarStore(DUMP, way="endless", round_trip_s=0).serving() as far:
        get(far, tmp_path)
        written = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert written <= len(DUMP) + MIB


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_fetch_in_ranges_goes_on_after_its_end_and_asks_for_nothing_twice(
    tmp_path: Path, number: signal.Signals
) -> None:
    with FarStore(DUMP, piece_s=0.05).serving() as far:
        ended_after(8 * MIB, far, tmp_path, number)
        assert not (tmp_path / "x.hprof").exists()
        far.piece_s, far.ranges = 0.0, []
        fetched = get(far, tmp_path)
        assert fetched.returncode == 0, fetched.stderr
        assert "of it fetched before" in fetched.stderr
        assert (tmp_path / "x.hprof").read_bytes() == DUMP
        asked = sum(last + 1 - first for first, last in far.ranges)
        assert asked <= len(DUMP) - 7 * MIB


def test_only_the_range_that_a_power_cut_damaged_is_fetched_anew(tmp_path: Path) -> None:
    with FarStore(DUMP, piece_s=0.02).serving() as far:
        part = ended_after(24 * MIB, far, tmp_path, signal.SIGKILL)
        with open(part, "r+b") as file:
            file.write(bytes(MIB))
        far.piece_s, far.ranges = 0.0, []
        fetched = get(far, tmp_path)
        assert fetched.returncode == 0, fetched.stderr
        assert "1 range of the part that lay here is damaged" in fetched.stderr
        assert (tmp_path / "x.hprof").read_bytes() == DUMP
        assert sum(last + 1 - first for first, last in far.ranges) <= len(DUMP) - 14 * MIB


def test_what_came_before_the_disk_was_full_is_kept(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; a store without ranges, for one that is read from the front."""
    with FarStore(DUMP, piece_s=0.02, way="no ranges").serving() as far:
        limited = start(far, tmp_path)
        resource.prlimit(limited.pid, resource.RLIMIT_FSIZE, (30 * MIB, 30 * MIB))
        _, said = limited.communicate(timeout=120)
        assert limited.returncode == 1
        assert "name another disk with --output" in said
        fetched = get(far, tmp_path)
        assert fetched.returncode == 0, fetched.stderr
        assert "of it fetched before" in fetched.stderr
        assert (tmp_path / "x.hprof").read_bytes() == DUMP


def test_a_part_file_that_others_may_write_is_not_gone_on_with(tmp_path: Path) -> None:
    with FarStore(DUMP, piece_s=0.02).serving() as far:
        part = ended_after(8 * MIB, far, tmp_path, signal.SIGKILL)
        part.chmod(0o666)
        far.piece_s = 0.0
        fetched = get(far, tmp_path)
        assert fetched.returncode == 0, fetched.stderr
        assert "others could write" in fetched.stderr
        assert "fetched before" not in fetched.stderr
        assert (tmp_path / "x.hprof").read_bytes() == DUMP


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user, which root alone may")
def test_a_part_file_of_another_user_gets_no_byte_of_the_heap(tmp_path: Path) -> None:
    with FarStore(DUMP, piece_s=0.02).serving() as far:
        first = start(far, tmp_path)
        part = part_in(tmp_path)
        first.kill()
        first.communicate(timeout=30)
        part.write_bytes(b"")
        part.chmod(0o666)
        os.chown(part, 12345, 12345)
        fetched = get(far, tmp_path)
        assert fetched.returncode == 1
        assert "another user (uid 12345)" in fetched.stderr
        assert part.read_bytes() == b""


def test_several_dumps_are_fetched_by_one_command_and_one_that_is_not_there_is_told_first(
    tmp_path: Path,
) -> None:
    with FarStore(DUMP, round_trip_s=0).serving() as far:
        fetched = get(far, tmp_path, "x.hprof", "x.hprof-2", "--output", ".")
        assert fetched.returncode == 0, fetched.stderr
        assert fetched.stdout.splitlines() == ["./x.hprof", "./x.hprof-2.hprof"]
        assert "dumpagent inspect --histogram ./x.hprof" in fetched.stderr
        assert "-Xmx1g" in fetched.stderr
        assert (tmp_path / "x.hprof-2.hprof").read_bytes() == DUMP
