"""The verdict: complete only when nobody writes and the records say so; everything less waits for quiet time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dumpagent.dumps.model import Cause, DumpFile, Identity, State
from dumpagent.kernel.lease import WriterState, take_read_lease
from dumpagent.upload.volume.judge import CompletenessJudge
from tests.harness.hprof import SEGMENT, Maker, members, record

MAKE = Maker()
QUIET_S = 120.0


class Bench:
    """One dump file and a judge whose clock and lease answers the test sets."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = 1000.0
        self.wall = 0.0
        self.writer: WriterState | None = None  # None: ask the kernel
        self.judge = CompletenessJudge(
            quiet_s=QUIET_S, now=self.now, monotonic=lambda: self.clock, take_lease=self.take_lease
        )

    def take_lease(self, fd: int) -> WriterState:
        return take_read_lease(fd) if self.writer is None else self.writer

    def now(self) -> float:
        return self.wall or os.stat(self.path).st_mtime

    def write(self, content: bytes) -> None:
        self.path.write_bytes(content)

    @property
    def dump(self) -> DumpFile:
        status = os.stat(self.path)
        identity = Identity.of(status)
        return DumpFile(str(self.path.parent), self.path.name, identity, status.st_dev)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "java_pid1.hprof")


def test_a_complete_dump_that_nobody_writes_is_due_at_once_with_its_facts(bench: Bench) -> None:
    bench.write(MAKE.dump())
    verdict = bench.judge.judge(bench.dump)
    assert (verdict.state, verdict.due) == (State.COMPLETE, True)
    assert verdict.facts is not None
    assert verdict.facts.cause is Cause.OOM
    assert verdict.facts.oom_stack[0] == "com.acme.Shop.fill(Shop.java:42)"


def test_a_gzip_dump_is_judged_whatever_its_name(bench: Bench) -> None:
    bench.write(members(MAKE.dump()))
    assert bench.judge.judge(bench.dump).state is State.COMPLETE


def test_a_file_that_is_held_open_and_never_written_says_for_how_long(bench: Bench) -> None:
    """Its name is taken from every JVM that would dump there. A part that grows beside it is a dump in the making."""
    bench.write(b"")
    with bench.path.open("ab"):
        bench.judge.judge(bench.dump)
        bench.clock += 700.0
        assert bench.judge.judge(bench.dump).held_open_s == 700.0
        bench.path.with_name("java_pid1.hprof.p0").write_bytes(b"more of the heap")
        assert bench.judge.judge(bench.dump).held_open_s == 0.0
    assert bench.judge.judge(bench.dump).held_open_s == 0.0


@pytest.mark.parametrize(
    "content", [b"", b"JAVA", MAKE.head(), MAKE.dump()[:-9], MAKE.dump(), members(MAKE.dump()), b"PK"]
)
def test_a_file_that_somebody_has_open_for_writing_is_being_written_whatever_it_holds(
    bench: Bench, content: bytes
) -> None:
    bench.write(content)
    with bench.path.open("ab"):
        for _ in range(3):
            verdict = bench.judge.judge(bench.dump)
            assert (verdict.state, verdict.due) == (State.WRITING, False)
            bench.clock += 10 * QUIET_S
    assert bench.judge.judge(bench.dump).state is not State.WRITING


def test_a_hung_writer_is_asked_about_less_and_less(bench: Bench) -> None:
    bench.write(MAKE.dump())
    bench.writer = WriterState.WRITER
    rechecks = []
    for _ in range(8):
        verdict = bench.judge.judge(bench.dump)
        assert verdict.recheck_s is not None
        rechecks.append(verdict.recheck_s)
        bench.clock += 10
    assert rechecks == sorted(rechecks)
    assert rechecks[0] < 0.5 < rechecks[-1] <= 30


@pytest.mark.parametrize(
    ("content", "state"),
    [
        (MAKE.dump()[:-9], State.TRUNCATED),
        (MAKE.dump()[:-4], State.TRUNCATED),
        (MAKE.head() + record(SEGMENT, bytes(9), length=0), State.TRUNCATED),
        (MAKE.dump() + b"more", State.TRUNCATED),
        (members(MAKE.dump()[:-9]), State.TRUNCATED),
        (members(MAKE.dump())[:-3], State.TRUNCATED),
        (b"JAVA PROF", State.TRUNCATED),
        (b"", State.NOT_A_DUMP),
        (b"<html>", State.NOT_A_DUMP),
    ],
)
def test_what_is_not_complete_waits_for_quiet_time_and_is_then_due(
    bench: Bench, content: bytes, state: State
) -> None:
    bench.write(content)
    bench.judge.judge(bench.dump)
    for left_s in (118, 117, 1):
        bench.clock = 1000 + QUIET_S - left_s
        verdict = bench.judge.judge(bench.dump)
        assert (verdict.state, verdict.due) == (state, False)
        assert verdict.recheck_s == pytest.approx(left_s, abs=0.01)
    bench.clock += 1.01
    verdict = bench.judge.judge(bench.dump)
    assert (verdict.state, verdict.due) == (state, True)


def test_quiet_time_begins_anew_with_every_change(bench: Bench) -> None:
    bench.write(MAKE.head())
    bench.judge.judge(bench.dump)
    bench.clock += QUIET_S - 1
    bench.write(MAKE.head() + MAKE.segment())
    assert not bench.judge.judge(bench.dump).due
    bench.clock += QUIET_S - 1
    assert not bench.judge.judge(bench.dump).due
    bench.clock += 1.01
    assert bench.judge.judge(bench.dump).due


def test_a_truncated_dump_from_before_our_start_is_not_waited_for_again(bench: Bench) -> None:
    bench.write(MAKE.head())
    bench.wall = os.stat(bench.path).st_mtime + QUIET_S + 0.01
    assert bench.judge.judge(bench.dump).due


def test_without_the_kernels_answer_even_a_whole_dump_waits_for_quiet_time(bench: Bench) -> None:
    bench.write(MAKE.dump())
    bench.writer = WriterState.UNKNOWN
    verdict = bench.judge.judge(bench.dump)
    assert (verdict.state, verdict.due) == (State.UNKNOWN, False)
    bench.clock += QUIET_S
    verdict = bench.judge.judge(bench.dump)
    assert (verdict.state, verdict.due) == (State.COMPLETE, True)


def test_without_the_kernels_answer_an_incomplete_dump_is_never_called_truncated(bench: Bench) -> None:
    bench.write(MAKE.dump()[:-9])
    bench.writer = WriterState.UNKNOWN
    assert bench.judge.judge(bench.dump).state is State.UNKNOWN
    bench.clock += QUIET_S
    verdict = bench.judge.judge(bench.dump)
    assert (verdict.state, verdict.due) == (State.UNKNOWN, True)


def test_without_the_kernels_answer_a_file_servers_clock_is_not_trusted(bench: Bench) -> None:
    bench.write(MAKE.dump())
    bench.writer = WriterState.UNKNOWN
    bench.wall = os.stat(bench.path).st_mtime + QUIET_S + 3000  # 50 minutes apart is a clock, not an age
    assert not bench.judge.judge(bench.dump).due
    bench.wall += 24 * 3600
    assert bench.judge.judge(bench.dump).due


def test_a_part_that_still_grows_keeps_its_stub_from_being_due(bench: Bench, tmp_path: Path) -> None:
    """JDK 22 and later leave X.hprof at one size for minutes while X.hprof.p0 grows."""
    bench.write(MAKE.head())
    bench.writer = WriterState.UNKNOWN
    part = tmp_path / "java_pid1.hprof.p3"
    for size in range(5):
        part.write_bytes(bytes(size))
        assert not bench.judge.judge(bench.dump).due
        bench.clock += QUIET_S - 1
    bench.clock += 1.01
    verdict = bench.judge.judge(bench.dump)
    assert verdict.due
    assert "1 part(s) of 4 bytes" in verdict.reason


def test_a_part_that_somebody_writes_means_that_the_dump_is_being_written(
    bench: Bench, tmp_path: Path
) -> None:
    bench.write(MAKE.head())
    bench.clock += 10 * QUIET_S
    with (tmp_path / "java_pid1.hprof.p0").open("wb"):
        assert bench.judge.judge(bench.dump).state is State.WRITING
    assert bench.judge.judge(bench.dump).state is State.TRUNCATED


def test_a_dump_that_is_taken_up_again_is_looked_at_anew(bench: Bench) -> None:
    bench.write(MAKE.dump()[:-9])
    assert bench.judge.judge(bench.dump).state is State.TRUNCATED
    bench.write(MAKE.dump(oom=False))
    verdict = bench.judge.judge(bench.dump)
    assert (verdict.state, verdict.due) == (State.COMPLETE, True)
    assert verdict.facts is not None
    assert verdict.facts.cause is Cause.REQUEST


def test_what_was_judged_must_be_what_was_found(bench: Bench) -> None:
    bench.write(MAKE.dump())
    found = bench.dump
    bench.write(MAKE.dump(segments=9))
    verdict = bench.judge.judge(found)
    assert not verdict.due
    assert verdict.recheck_s == 0


def test_a_look_does_not_keep_the_agent_long_and_the_next_one_goes_on(bench: Bench) -> None:
    bench.write(members(MAKE.head() + record(SEGMENT, bytes(30 << 20)), 1 << 20) + members(record(0x2C)))
    bench.judge = CompletenessJudge(quiet_s=QUIET_S, now=bench.now, monotonic=iter(range(10**6)).__next__)
    looks = 1
    while (verdict := bench.judge.judge(bench.dump)).state is State.UNKNOWN:
        assert (verdict.due, verdict.recheck_s) == (False, 0)
        looks += 1
    assert verdict.state is State.COMPLETE
    assert looks > 1


def test_a_file_that_is_gone_replaced_or_no_file_is_an_error_not_a_verdict(
    bench: Bench, tmp_path: Path
) -> None:
    bench.write(MAKE.dump())
    dump = bench.dump
    bench.path.rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        bench.judge.judge(dump)
    bench.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="not a regular file"):
        bench.judge.judge(dump)
    bench.path.unlink()
    os.mkfifo(bench.path)
    with pytest.raises(OSError, match="regular"):
        bench.judge.judge(dump)
    bench.path.unlink()
    bench.write(b"another")
    with pytest.raises(FileNotFoundError):
        bench.judge.judge(dump)


def test_a_lease_does_not_outlive_the_look(bench: Bench) -> None:
    bench.write(MAKE.dump())
    bench.judge.judge(bench.dump)
    fd = os.open(bench.path, os.O_WRONLY | os.O_NONBLOCK)  # EWOULDBLOCK while somebody holds a lease
    os.close(fd)


@pytest.mark.parametrize(
    "content",
    [b"", b"JAVA PROF", MAKE.head(), MAKE.dump()[:-9], members(MAKE.dump())[:-3]],
    ids=["empty", "header", "records", "heap", "gzip"],
)
def test_a_cut_dump_that_nobody_writes_may_be_renamed_after_a_second_and_uploaded_after_the_quiet_time(
    bench: Bench, content: bytes
) -> None:
    bench.write(content)
    verdict = bench.judge.judge(bench.dump)
    assert (verdict.due, verdict.claimable) == (False, False)
    assert verdict.recheck_s == pytest.approx(1.0, abs=0.1)
    bench.clock += 1.1
    verdict = bench.judge.judge(bench.dump)
    assert (verdict.due, verdict.claimable) == (False, True)
    bench.clock += QUIET_S
    assert bench.judge.judge(bench.dump).due


@pytest.mark.parametrize("writer", [WriterState.WRITER, WriterState.UNKNOWN])
def test_a_cut_dump_keeps_its_name_while_somebody_may_write_it(bench: Bench, writer: WriterState) -> None:
    bench.write(MAKE.dump()[:-9])
    bench.writer = writer
    for _ in range(3):
        assert not bench.judge.judge(bench.dump).claimable
        bench.clock += QUIET_S / 4


def test_a_file_that_is_no_dump_keeps_its_name_for_the_quiet_time(bench: Bench) -> None:
    bench.write(b"PK\3\4 somebody's archive, still being unpacked in steps")
    bench.judge.judge(bench.dump)
    bench.clock += 10
    assert not bench.judge.judge(bench.dump).claimable


def test_a_dump_made_to_take_minutes_for_its_stack_is_judged_without_it(tmp_path: Path) -> None:
    """A GiB of the smallest records outside the heap kept the main loop from its heartbeat until it was killed."""
    bench = Bench(tmp_path / "x.hprof")
    bench.write(MAKE.dump())
    elapsed_s = iter(range(0, 1_000_000, 10))
    judge = CompletenessJudge(quiet_s=0, cpu=lambda: float(next(elapsed_s)))
    verdict = judge.judge(bench.dump)
    assert (verdict.state, verdict.due) == (State.COMPLETE, True)
    whole = CompletenessJudge(quiet_s=0).judge(bench.dump)
    assert verdict.facts
    assert whole.facts
    assert verdict.facts.oom_stack != whole.facts.oom_stack
