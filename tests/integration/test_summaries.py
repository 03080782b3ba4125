"""What the agent says of a dump's contents: the real agent, a real JVM's dump, an S3 server, a process that can be seen."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dumpagent.kernel.reading import open_regular
from dumpagent.summary.process import NoSummary, SummaryProcess
from tests.harness.hprof import Maker
from tests.harness.jvm import Jdk
from tests.harness.leaks import dump_leak
from tests.harness.stores.server import StoreServer
from tests.integration.test_upload_of_jvm_dumps import Agent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SERIAL = ["-XX:+UseSerialGC"]


def children_of(pid: int) -> list[int]:
    """Give the processes that summarise for this agent."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue  # the thread has ended
        for child in children:
            try:
                if b"dumpagent.summary.child" in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
            except OSError:
                continue
    return found


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]


def wait_until(true: Callable[[], bool], *, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def leak(tmp_path_factory: pytest.TempPathFactory, any_jdk_of_module: Jdk) -> Path:
    path = tmp_path_factory.mktemp("leak") / "sessions.hprof"
    dump_leak(any_jdk_of_module, "sessions", path, mib=40, options=SERIAL)
    return path


@pytest.fixture(scope="module")
def any_jdk_of_module() -> Jdk:
    from tests.harness.jvm import any_jdk

    return any_jdk()


def report_in(moto: StoreServer, bucket: str, key: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(moto.client().get_object(Bucket=bucket, Key=key)["Body"].read())
    return found


def test_the_holder_is_told_in_log_and_store_once_a_dump_is_safe(
    moto: StoreServer, tmp_path: Path, leak: Path
) -> None:
    bucket, content = moto.new_bucket(), leak.read_bytes()
    with Agent(tmp_path, moto, bucket) as agent:
        (tmp_path / "whole.hprof").write_bytes(content)
        (tmp_path / "cut.hprof").write_bytes(content[: len(content) * 2 // 3])
        (tmp_path / "packed.hprof.gz").write_bytes(gzip.compress(content, 1))
        told = {
            Path(str(line["key"])).name.partition(".")[0]: line
            for line in agent.wait_for("dump_summarised", 3, timeout_s=200)
        }
    assert set(told) == {"whole", "cut", "packed"}
    for name, line in told.items():
        lines = list(line["lines"])  # type: ignore[call-overload]
        assert len([line for line in lines if not line.startswith("since the dump of")]) == 3
        assert "PlantedLeaks$SessionStore.sessions" in lines[0], name
        assert "most likely" in lines[0]
        report = report_in(moto, bucket, str(line["report"]))
        assert report["owner"]["name"] == "PlantedLeaks$SessionStore.sessions"
        assert report["dump"]["key"] == line["key"]
        assert b"session-17" in content  # a text of the heap
        assert "session-1" not in json.dumps(report)
    assert "before it ends" in str(told["cut"]["lines"])
    assert report_in(moto, bucket, str(told["cut"]["report"]))["damage"]


def test_a_summary_stands_still_while_another_dump_is_uploaded(
    moto: StoreServer, tmp_path: Path, leak: Path
) -> None:
    bucket = moto.new_bucket()
    with Agent(tmp_path, moto, bucket) as agent:
        (tmp_path / "first.hprof").write_bytes(leak.read_bytes())
        wait_until(lambda: bool(children_of(agent.pid)))
        (child,) = children_of(agent.pid)
        wait_until(lambda: Path(f"/proc/{child}/oom_score_adj").read_text() == "1000\n")
        assert state_of(child) in "RSD"
        states: list[str] = []
        stop = threading.Event()
        watcher = threading.Thread(target=watch, args=(child, states, stop))
        watcher.start()
        big = bytes(200 << 20)
        (tmp_path / "second.hprof").write_bytes(Maker().dump() + big)
        agent.wait_for("dump_uploaded", 2)
        stop.set()
        watcher.join()
        assert "T" in states
        agent.wait_for("dump_summarised", 1, timeout_s=120)


def watch(pid: int, states: list[str], stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            states.append(state_of(pid))
        except OSError:
            return
        time.sleep(0.002)


def test_a_summary_that_was_cut_off_by_kill_9_is_made_after_the_restart(
    moto: StoreServer, tmp_path: Path, leak: Path
) -> None:
    bucket = moto.new_bucket()
    with Agent(tmp_path, moto, bucket) as agent:
        (tmp_path / "first.hprof").write_bytes(leak.read_bytes())
        wait_until(lambda: bool(children_of(agent.pid)))
        (child,) = children_of(agent.pid)
        os.kill(agent.pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{child}").exists() or state_of(child) == "Z", timeout_s=30)
    with Agent(tmp_path, moto, bucket) as agent:
        agent.wait_for("dump_summarised", timeout_s=120)
    with Agent(tmp_path, moto, bucket) as agent:
        time.sleep(2)
        assert not agent.of("dump_summarised")
    assert not list((tmp_path / ".dumpagent" / "summaries").iterdir())


def test_a_summary_that_the_kernel_kills_for_memory_harms_nobody(
    moto: StoreServer, tmp_path: Path, leak: Path
) -> None:
    bucket = moto.new_bucket()
    with Agent(tmp_path, moto, bucket) as agent:
        (tmp_path / "first.hprof").write_bytes(leak.read_bytes())
        wait_until(lambda: bool(children_of(agent.pid)))
        os.kill(children_of(agent.pid)[0], signal.SIGKILL)  # as the kernel does
        (failed,) = agent.wait_for("summary_failed")
        assert "SIGKILL" in str(failed["error"])
        (tmp_path / "second.hprof").write_bytes(Maker().dump())
        agent.wait_for("dump_uploaded", 2)


def test_summary_off_makes_none(moto: StoreServer, tmp_path: Path, leak: Path) -> None:
    bucket = moto.new_bucket()
    with Agent(tmp_path, moto, bucket, SUMMARY="off") as agent:
        (tmp_path / "first.hprof").write_bytes(leak.read_bytes())
        agent.wait_for("dump_uploaded")
        time.sleep(1)
        assert not children_of(agent.pid)
        assert not (tmp_path / ".dumpagent" / "summaries").exists()


def summary_of(path: Path, *, budget_s: float) -> tuple[dict[str, Any], int]:
    """Give the answer of a process, and the most memory that it took (MiB)."""
    with open_regular(str(path)) as opened:
        process = SummaryProcess(opened.fd, size_bytes=opened.status().st_size, budget_s=budget_s)
        most_kib = 0
        while not process.wait(0.05):
            status = Path(f"/proc/{process.pid}/status").read_text()
            found = [line for line in status.splitlines() if line.startswith("VmHWM")]
            most_kib = max([most_kib, *(int(line.split()[1]) for line in found)])
        return process.answer(), most_kib >> 10


def test_a_budget_that_ends_is_told_and_gives_what_was_found(leak: Path) -> None:
    answer, most_mib = summary_of(leak, budget_s=0.1)
    report = answer["report"]
    assert report["out_of_time"]
    assert report["surveyed_percent"] < 100
    assert report["classes"]
    assert "budget of CPU time" in answer["lines"][0]
    assert report["cpu_s"] < 3
    assert 0 < most_mib <= 96


def test_a_process_that_the_kernel_ends_is_told(leak: Path) -> None:
    with open_regular(str(leak)) as opened:
        process = SummaryProcess(opened.fd, size_bytes=opened.status().st_size, budget_s=60)
        os.kill(process.pid, signal.SIGXCPU)
        while not process.wait(1.0):
            pass
        with pytest.raises(NoSummary, match="SIGXCPU"):
            process.answer()


PAUSES_AT_ONCE = """
import os, sys
from dumpagent.summary.process import SummaryProcess
process = SummaryProcess(0, size_bytes=os.fstat(0).st_size, budget_s=60)
process.pause()
print(process.pid, flush=True)
while not process.wait(0.02):
    pass
"""


@pytest.mark.parametrize("stands_still", [True, False], ids=["when it stands still", "at once"])
def test_a_process_that_is_paused_at_its_very_start_does_not_outlive_a_killed_agent(
    leak: Path, stands_still: bool
) -> None:
    """It would keep the dump's descriptor open, and with it the space of a dump that is deleted."""
    with leak.open("rb") as dump:
        agent = subprocess.Popen(
            [sys.executable, "-c", PAUSES_AT_ONCE], stdin=dump, stdout=subprocess.PIPE, text=True
        )
    assert agent.stdout
    pid = int(agent.stdout.readline())
    deadline = time.monotonic() + 60
    while stands_still and state_of(pid) != "T":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    agent.kill()
    agent.wait()
    while is_alive(pid):
        assert time.monotonic() < deadline, state_of(pid)
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return state_of(pid) not in ("Z", "X")
    except OSError:
        return False
