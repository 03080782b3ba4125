"""What the daemons cost when nothing happens, and how fast they are when something does."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.clients import Job, environment
from bench.limits import Cgroup
from bench.measure import run
from bench.stage import BUCKET, REPOSITORY, Conditions, Stage
from dumpagent.cli import COMMANDS
from tests.harness.children import end, start

_TICKS = os.sysconf("SC_CLK_TCK")
Figures = dict[str, float]
_PIECE_BYTES = 4 << 20
_DUMPING_S = 2.0  # what a JVM with a few hundred MB takes, and more with a fifth of a core


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS  # its own and that of its reaped children


def _rss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


@contextmanager
def _uploading(stage: Stage, root: Path, *more: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the upload daemon on `root` with the defaults of its settings, so far as `more` says nothing else."""
    scratch = stage.folder / "daemon"
    scratch.mkdir(exist_ok=True)
    url = stage.endpoint_url(Conditions())
    job = Job(root / "x", scratch, url, stage.ca, BUCKET, "x")
    argv = [
        *(sys.executable, "-m", "dumpagent", "upload", "--dump-root", str(root), "--s3-bucket", BUCKET),
        *("--s3-endpoint-url", url, "--state-dir", str(scratch / "state"), *more),
    ]
    env = {
        **environment(job),
        "PYTHONPATH": str(REPOSITORY),
        "RUNTIME_DIR": str(scratch / "run"),
        "METRICS_PORT": "0",
    }
    with open(scratch / "said", "wb") as said:
        daemon = start(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield daemon
            if daemon.poll() is not None:
                raise RuntimeError((scratch / "said").read_text()[-2000:])
        finally:
            end(daemon)
            shutil.rmtree(scratch, ignore_errors=True)


def idle(stage: Stage, dump: Path, *, files: int, seconds: float) -> Figures:
    """Give CPU and RSS of the upload daemon over `files` files: before its first upload, and after it."""
    root = stage.folder / "idle"
    for number in range(files):
        folder = root / f"{number // 100}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        (folder / f"{number}.log").touch()
    quiet = ("--file-stable-time", "0", "--claim", "false")
    with _uploading(stage, root, *quiet) as daemon:
        time.sleep(4)  # it starts, looks, and asks the store
        began, cpu_s = time.monotonic(), _cpu_s(daemon.pid)
        time.sleep(seconds)
        share = (_cpu_s(daemon.pid) - cpu_s) / (time.monotonic() - began)
        rss_bytes = _rss_bytes(daemon.pid)
    stage.ask("POST", "/_forget")
    with _uploading(stage, root, "--watch-interval", "2", *quiet) as daemon:
        time.sleep(2)
        _copy(dump, root / "java_pid1.hprof")
        _wait_for_object(stage, "java_pid1.hprof", timeout_s=180)
        time.sleep(3)
        after_bytes = _rss_bytes(daemon.pid)
    shutil.rmtree(root)
    return {"files": files, "cpu_share": share, "rss_bytes": rss_bytes, "rss_after_upload_bytes": after_bytes}


def first_byte(stage: Stage, dump: Path, *, times: int, timeout_s: float) -> Figures:
    """Give how long after the close of a dump its first byte reaches the store, with the settings' defaults."""
    root = stage.folder / "watched"
    root.mkdir()
    seconds = []
    stage.ask("POST", "/_forget")
    with _uploading(stage, root):
        time.sleep(4)
        for number in range(times):
            closed_at = _copy(dump, root / f"java_pid{number}.hprof")
            seconds.append(
                _wait_for_object(stage, f"java_pid{number}.hprof", timeout_s=timeout_s) - closed_at
            )
    shutil.rmtree(root)
    return {"median_s": statistics.median(seconds), "max_s": max(seconds), "times": times}


def first_byte_of_the_first(stage: Stage, dump: Path, *, times: int, timeout_s: float) -> Figures:
    """Give the same for the first dump of a daemon inside 200m and 256 MiB, which has never asked its store before."""
    seconds, idle_bytes = [], 0
    for number in range(times):
        root = stage.folder / f"first-{number}"
        root.mkdir()
        stage.ask("POST", "/_forget")
        with Cgroup(0.2, 256 << 20) as cgroup, _uploading(stage, root) as daemon:
            cgroup.join(daemon.pid)
            time.sleep(15)  # with a fifth of a core it takes so long to start, look, and ask the store
            idle_bytes = max(idle_bytes, _rss_bytes(daemon.pid))
            closed_at = _copy(dump, root / "java_pid1.hprof", over_s=_DUMPING_S)
            seconds.append(_wait_for_object(stage, "java_pid1.hprof", timeout_s=timeout_s) - closed_at)
        shutil.rmtree(root)
    return {
        "median_s": statistics.median(seconds), "max_s": max(seconds), "idle_rss_bytes": idle_bytes, "times": times,
    }  # fmt: skip


def _copy(dump: Path, target: Path, *, over_s: float = 0) -> float:
    """Write a copy as a JVM does, under its own name from the start, in `over_s`; give the moment of its close."""
    pieces = -(-dump.stat().st_size // _PIECE_BYTES)
    with open(dump, "rb") as source, open(target, "xb") as copy:
        while piece := source.read(_PIECE_BYTES):
            copy.write(piece)
            time.sleep(over_s / pieces)
        copy.flush()
    return time.monotonic()


def _wait_for_object(stage: Stage, key: str, *, timeout_s: float) -> float:
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        found = stage.ask("GET", "/_report")["objects"].get(key)
        if found:
            return float(found["first_byte"])
        time.sleep(0.2)
    raise TimeoutError(f"{key} did not reach the store in {timeout_s:g} s")


_SCAN = """
import json, sys, time
from dumpagent.upload.volume.scan import scan
scan(sys.argv[1])
began = time.process_time()
found = scan(sys.argv[1])
print(json.dumps({"cpu_s": time.process_time() - began, "dumps": len(found.dumps), "unreadable": len(found.unreadable)}))
"""


def scan(stage: Stage, *, files: int, folders: int) -> Figures:
    """Give the CPU of one scan over files that are no dumps, once the kernel knows the directories."""
    root = stage.folder / "scanned"
    for folder in range(folders):
        (root / f"{folder}").mkdir(parents=True)
        for number in range(files // folders):
            os.close(os.open(root / f"{folder}" / f"{number}.log", os.O_CREAT | os.O_WRONLY, 0o600))
    try:
        answer = subprocess.run(
            [sys.executable, "-c", _SCAN, str(root)],
            check=True,
            capture_output=True,
            text=True,
            cwd=REPOSITORY,
        )
    finally:
        shutil.rmtree(root)
    found = json.loads(answer.stdout)
    return {"files": files, "folders": folders, "cpu_s": found["cpu_s"]}


def probe(stage: Stage, *, times: int) -> Figures:
    """Give the CPU and the wall clock (inside 100m) of one `dumpagent check`, whatever it answers."""
    argv = [sys.executable, "-m", "dumpagent", "check", "live"]
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), "RUNTIME_DIR": str(stage.folder)}
    free = [run(argv, env=env, said_in=stage.folder / "said") for _ in range(times)]
    with Cgroup(0.1, 64 << 20) as cgroup:
        limited = sorted(
            run(argv, env=env, said_in=stage.folder / "said", cgroup=cgroup).wall_s for _ in range(times)
        )
    return {
        "cpu_s": statistics.median(cost.cpu_s for cost in free),
        "wall_at_100m_p95_s": limited[int(times * 0.95) - 1],
        "times": times,
    }


def inspect(stage: Stage, dump: Path, *, times: int) -> Figures:
    """Give what `dumpagent inspect` costs on a dump, and with a histogram."""
    if "inspect" not in COMMANDS:
        raise NotImplementedError("this version has no `inspect`")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
    figures: Figures = {"size_bytes": dump.stat().st_size, "times": times}
    for name, more in (("verdict", ["--quick"]), ("histogram", ["--histogram"])):
        argv = [sys.executable, "-m", "dumpagent", "inspect", *more, str(dump)]
        costs = [run(argv, env=env, said_in=stage.folder / "said") for _ in range(times)]
        figures[f"{name}_cpu_s"] = statistics.median(cost.cpu_s for cost in costs)
        figures[f"{name}_wall_s"] = statistics.median(cost.wall_s for cost in costs)
        figures[f"{name}_rss_bytes"] = max(cost.rss_bytes for cost in costs)
    return figures
