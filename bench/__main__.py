"""`make bench`: measures everything in one run, interleaved, and writes a table, JSON and plots.

Ctrl-C ends it, and the report has what was measured until then.

python -m bench --tools VENV/bin --out DIRECTORY [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import daemon, download
from bench.clients import Client, clients
from bench.dumps import heap_dump, large_file, tiny_dump
from bench.report import AGENT, GZIP, LIMIT, MIB, Row, as_json, demands, named, rows, text
from bench.speed import speed
from bench.stage import REPOSITORY, Conditions, Failed, Sample, Stage
from bench.steps import Step, take_all
from tests.harness.children import start

POD = {"cpus": 0.2, "memory_bytes": 256 * MIB}
MOUNT_S = {"remount": 75, "remount-100m": 80, "files-100m": 30, "idle": 140, "probe": 70}


class Bench:
    """The runs so far. A client that fails once under some conditions is not run there again."""

    def __init__(self, stage: Stage, known: dict[str, Client], tools: Path | None = None) -> None:
        self.stage, self.known, self.tools = stage, known, tools
        self.samples: list[Sample] = []
        self.startups: dict[tuple[str, str], list[float]] = {}
        self.failures: dict[tuple[str, Conditions], str] = {}
        self.daemons: dict[str, dict[str, Any]] = {}
        self.sizes: dict[str, float] = {}
        self.mount: list[dict[str, Any]] = []

    def compare(self, names: list[str], dump: Path, conditions: Conditions) -> None:
        """Run each client once."""
        for name in names:
            self._run(name, dump, conditions)

    def start_up(self, names: list[str], scheme: str) -> None:
        """Take what each client costs before it sends anything worth mentioning."""
        for name in names:
            sample = self._run(name, tiny_dump(), Conditions(scheme=scheme), keep=False)
            if sample:
                self.startups.setdefault((name, scheme), []).append(sample.cost.cpu_s)

    def large(self, names: list[str]) -> None:
        """Take the peak RSS of uploads of 5 GiB."""
        with tempfile.TemporaryDirectory(prefix="dumpagent-bench-") as folder:
            dump = large_file(Path(folder), 5 << 30, pattern=heap_dump(1024))
            for name in names:
                sample = self._run(name, dump, Conditions(scheme="http"), keep=False)
                if sample:
                    self.sizes["rss_5_gib" + ("_gzip" if name == GZIP else "")] = sample.cost.rss_bytes

    def gzip_size(self, dump: Path) -> None:
        """Take the size of our compressed dump against that of `gzip -1`."""
        ours = next((row for row in rows(self.samples, {}) if row.client == GZIP), None)
        if ours:
            told = subprocess.run(
                f"gzip -1 -c {dump} | wc -c", shell=True, check=True, capture_output=True, text=True
            )
            size_bytes = ours.wire_share * dump.stat().st_size
            self.sizes["gzip_ratio_against_gzip_1"] = size_bytes / int(told.stdout)

    def mount_mode(self, name: str, *more: str) -> None:
        """Take one of the figures of `make bench-mount`, in a process that gets to end its mounts on Ctrl-C."""
        out = self.stage.folder / "mount.json"
        out.unlink(missing_ok=True)
        argv = [sys.executable, "-m", "bench.mount_figures", name, *more, "--json", str(out)]
        child = start(argv, cwd=REPOSITORY, stdout=sys.stderr, start_new_session=True)
        try:
            child.wait()
        except KeyboardInterrupt:
            child.send_signal(signal.SIGINT)
            child.wait(30)
            raise
        if out.exists():
            self.mount += json.loads(out.read_text())
        else:
            say(f"FAILED: mount figures, {name}")

    def _run(self, name: str, dump: Path, conditions: Conditions, *, keep: bool = True) -> Sample | None:
        if (name, conditions) in self.failures:
            return None
        try:
            sample = self.stage.upload(self.known[name], dump, conditions)
        except (Failed, subprocess.TimeoutExpired) as error:
            self.failures[name, conditions] = str(error).strip().replace("\n", " ")[-300:]
            say(f"FAILED {name}: {error}")
            return None
        cost = sample.cost
        say(
            f"{name:18} {conditions.scheme:5} rtt {conditions.rtt_ms:g} mbit {conditions.mbit:g} "
            f"{'200m ' if conditions.cpus else ''}{dump.stat().st_size / MIB:.0f} MiB: CPU {cost.cpu_s:.2f} s, "
            f"wall {cost.wall_s:.2f} s, RSS {cost.rss_bytes / MIB:.0f} MiB"
            + (f", cgroup peak {cost.cgroup.peak_bytes / MIB:.0f} MiB" if cost.cgroup else "")
        )
        if keep:
            self.samples.append(sample)
        return sample

    def measure(self, name: str, take: Callable[[], dict[str, float]]) -> None:
        """Take one of the daemons' figures; what cannot be taken says why in the report."""
        try:
            self.daemons[name] = take()
        except (
            NotImplementedError,
            TimeoutError,
            RuntimeError,
            subprocess.SubprocessError,
            OSError,
        ) as error:
            self.daemons[name] = {"not measured": str(error)[-300:]}
        say(f"{name}: {self.daemons[name]}")

    def rows(self) -> list[Row]:
        """Give the medians, and a row for each client that failed."""
        found = rows(self.samples, self.startups)
        found += [
            Row(name, conditions, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, failed=why)
            for (name, conditions), why in self.failures.items()
        ]
        return found


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def plan(bench: Bench, *, quick: bool) -> list[Step]:
    """Give every step of a run: rounds that begin with another client each time, then what else there is."""
    mib = 256 if quick else 1024
    names = list(bench.known)
    steps = [Step("heap dumps", 2, lambda: (heap_dump(256), heap_dump(mib)))]

    def rounds(
        wanted: list[str], size_mib: int, conditions: Conditions, *, times: int, expected_s: float
    ) -> None:
        there = [name for name in wanted if name in bench.known]
        for number in range(times if there else 0):
            turn = number % len(there)
            order = there[turn:] + there[:turn]
            steps.append(
                Step(
                    f"{named(size_mib, conditions)}: round {number + 1} of {times}",
                    expected_s,
                    lambda order=order: bench.compare(order, heap_dump(size_mib), conditions),  # type: ignore[misc]
                )
            )

    def start_up(wanted: list[str], scheme: str, *, times: int, expected_s: float) -> None:
        there = [name for name in wanted if name in bench.known]
        for number in range(times):
            name = f"start-up over {scheme}: round {number + 1} of {times}"
            steps.append(Step(name, expected_s, lambda: bench.start_up(there, scheme)))

    def measure(name: str, expected_s: float, take: Callable[[], dict[str, float]]) -> None:
        steps.append(Step(name, expected_s, lambda: bench.measure(name, take)))

    start_up(names, "https", times=2 if quick else 5, expected_s=4)
    rounds(names, mib, Conditions(), times=3 if quick else 5, expected_s=10 if quick else 25)
    steps.append(Step("size of gzip -1", mib / 70, lambda: bench.gzip_size(heap_dump(mib))))
    if not quick:
        few = [AGENT, GZIP, "aws-cli", LIMIT]
        start_up(few, "http", times=5, expected_s=3)
        rounds(few, mib, Conditions(scheme="http"), times=5, expected_s=9)
    pod = Conditions(cold=True, **POD)  # type: ignore[arg-type]
    rounds([AGENT, GZIP, "aws-cli", LIMIT], mib, pod, times=1 if quick else 5, expected_s=15 if quick else 38)
    if not quick:
        for rtt_ms in (20, 100):
            rounds([AGENT, GZIP], 256, replace(pod, rtt_ms=rtt_ms), times=5, expected_s=10)
    narrow = replace(pod, mbit=100)
    rounds([AGENT, GZIP], mib, narrow, times=1 if quick else 5, expected_s=33 if quick else 118)

    stage = bench.stage
    if not quick:
        steps.append(
            Step("5 GiB", 60, lambda: bench.large([name for name in (AGENT, GZIP) if name in names]))
        )
    measure("scan", 12, lambda: daemon.scan(stage, files=100_000, folders=1_000))
    idle_s = 10 if quick else 60
    measure("idle", idle_s + 15, lambda: daemon.idle(stage, heap_dump(256), files=10_000, seconds=idle_s))
    measure("probe", 5 if quick else 15, lambda: daemon.probe(stage, times=10 if quick else 40))
    times = 1 if quick else 5
    measure(
        "close to first byte",
        5 + 5 * times,
        lambda: daemon.first_byte(stage, heap_dump(256), times=times, timeout_s=15 if quick else 150),
    )
    times_limited = 1 if quick else 3
    measure(
        "close to first byte of the first dump, 200m",
        20 * times_limited,
        lambda: daemon.first_byte_of_the_first(stage, heap_dump(256), times=times_limited, timeout_s=60),
    )
    measure("inspect", mib * times / 250, lambda: daemon.inspect(stage, heap_dump(mib), times=times))
    if bench.tools and not quick:
        for mbit in (0, 1000, 100):
            width = f"{mbit} Mbit/s" if mbit else "any bandwidth"
            fetch = partial(download.figures, bench.tools, heap_dump(1024), rtt_ms=50, mbit=mbit, times=3)
            measure(f"get, round trip 50 ms, {width}", 600 if mbit == 100 else 90, fetch)
    if quick:
        steps.append(Step("mount mode: remount", 12, lambda: bench.mount_mode("remount", "--short")))
    else:
        for name, expected_s in MOUNT_S.items():
            take = partial(bench.mount_mode, name)
            steps.append(Step(f"mount mode: {name}", expected_s, take))
    return steps


def about(quick: bool, began: float) -> dict[str, Any]:
    told = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    cpu = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "")
    return {
        "commit": told.stdout.strip(),
        "quick": quick,
        "seconds": round(time.monotonic() - began),
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
        "cpu": cpu.partition(": ")[2],
        "cores": os.cpu_count(),
        "speed": speed(),
    }


def main() -> int:
    """Measure, write the report, and give the exit code: 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True, help="where the other clients are installed")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="the main figures, in under 3 minutes")
    parser.add_argument("--client", action="append", help="only these clients")
    given = parser.parse_args()
    began = time.monotonic()
    known = clients(given.tools)
    if given.client:
        known = {name: client for name, client in known.items() if name in given.client}
    early = False
    with Stage() as stage:
        bench = Bench(stage, known, given.tools)
        try:
            take_all(plan(bench, quick=given.quick), say)
        except KeyboardInterrupt:
            early = True
            say("ended early: the report has what was measured so far")
    found = bench.rows()
    values = as_json(
        found,
        bench.daemons,
        bench.sizes,
        bench.mount,
        demands(found, bench.daemons, bench.sizes),
        {**about(given.quick, began), "ended_early": early},
    )
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "report.json").write_text(json.dumps(values, indent=1) + "\n")
    report = text(values)
    (given.out / "report.md").write_text(report)
    print(report, flush=True)
    plots = [str(given.tools / "python"), str(Path(__file__).parent / "plots.py"), str(given.out)]
    subprocess.run(plots, check=True)
    return 130 if early else 0


if __name__ == "__main__":
    sys.exit(main())
