"""`make bench`: measures everything in one run, interleaved, and writes a table, JSON and plots.

python -m bench --tools VENV/bin --out DIRECTORY [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import daemon
from bench.clients import Client, clients
from bench.dumps import heap_dump, large_file, tiny_dump
from bench.report import AGENT, GZIP, MIB, Row, as_json, demands, rows, text
from bench.stage import Conditions, Failed, Sample, Stage

POD = {"cpus": 0.2, "memory_bytes": 256 * MIB}


class Bench:
    """The runs so far. A client that fails once under some conditions is not run there again."""

    def __init__(self, stage: Stage, known: dict[str, Client]) -> None:
        self.stage, self.known = stage, known
        self.samples: list[Sample] = []
        self.startups: dict[tuple[str, str], list[float]] = {}
        self.failures: dict[tuple[str, Conditions], str] = {}
        self.daemons: dict[str, dict[str, Any]] = {}
        self.sizes: dict[str, float] = {}

    def compare(self, names: list[str], dump: Path, conditions: Conditions, *, times: int) -> None:
        """Run the clients in turn, each `times` times; every round begins with another one."""
        for number in range(times):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                self._run(name, dump, conditions)

    def start_up(self, names: list[str], scheme: str, *, times: int) -> None:
        """Take what each client costs before it sends anything worth mentioning."""
        for _ in range(times):
            for name in names:
                sample = self._run(name, tiny_dump(), Conditions(scheme=scheme), keep=False)
                if sample:
                    self.startups.setdefault((name, scheme), []).append(sample.cost.cpu_s)

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


def gzip_ratio(dump: Path, gzip_row: Row | None) -> float | None:
    """Give the size of our compressed dump against that of `gzip -1`."""
    if gzip_row is None:
        return None
    told = subprocess.run(
        f"gzip -1 -c {dump} | wc -c", shell=True, check=True, capture_output=True, text=True
    )
    return gzip_row.wire_share * dump.stat().st_size / int(told.stdout)


def go(bench: Bench, *, quick: bool) -> None:
    """Take every figure."""
    stage, times = bench.stage, 1 if quick else 5
    names = list(bench.known)
    dump = heap_dump(256 if quick else 1024)
    small = heap_dump(256)
    bench.start_up(names, "https", times=2 if quick else 5)
    bench.compare(names, dump, Conditions(), times=3 if quick else 5)
    gzipped = next((row for row in rows(bench.samples, {}) if row.client == GZIP), None)
    if ratio := gzip_ratio(dump, gzipped):
        bench.sizes["gzip_ratio_against_gzip_1"] = ratio
    if not quick:
        bench.start_up(names, "http", times=times)
        bench.compare(names, dump, Conditions(scheme="http"), times=times)
    ours = [name for name in (AGENT, GZIP) if name in bench.known]
    rivals = ["aws-cli"] if quick else ["aws-cli", "boto3 upload_file", "s5cmd tuned", "rclone tuned"]
    pod = Conditions(cold=True, **POD)  # type: ignore[arg-type]
    bench.compare(ours + rivals, dump, pod, times=times)
    for rtt_ms, mbit in [(0, 100)] if quick else [(20, 0), (100, 0), (0, 100), (20, 100), (100, 100)]:
        line = Conditions(rtt_ms=rtt_ms, mbit=mbit, cold=True, **POD)  # type: ignore[arg-type]
        bench.compare(ours + ([] if quick else ["aws-cli"]), small, line, times=times)
    if not quick:
        with tempfile.TemporaryDirectory(prefix="dumpagent-bench-") as folder:
            large = large_file(Path(folder), 5 << 30, pattern=dump)
            for name in ours:
                sample = bench._run(name, large, Conditions(scheme="http"), keep=False)
                if sample:
                    bench.sizes["rss_5_gib" + ("_gzip" if name == GZIP else "")] = sample.cost.rss_bytes
    bench.measure("scan", lambda: daemon.scan(stage, files=100_000, folders=1_000))
    bench.measure("idle", lambda: daemon.idle(stage, small, files=10_000, seconds=10 if quick else 60))
    bench.measure("probe", lambda: daemon.probe(stage, times=10 if quick else 40))
    bench.measure(
        "close to first byte",
        lambda: daemon.first_byte(stage, small, times=1 if quick else 5, timeout_s=15 if quick else 150),
    )
    bench.measure(
        "close to first byte of the first dump, 200m",
        lambda: daemon.first_byte_of_the_first(stage, small, times=1 if quick else 5, timeout_s=60),
    )
    bench.measure("remount", lambda: daemon.remount(stage, times=5 if quick else 30))
    bench.measure("inspect", lambda: daemon.inspect(stage, dump, times=1 if quick else 5))


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
    }


def main() -> None:
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
    with Stage() as stage:
        bench = Bench(stage, known)
        try:
            go(bench, quick=given.quick)
        except KeyboardInterrupt:
            say("ended early: the report has what was measured so far")
    found = bench.rows()
    asked = demands(found, bench.daemons, bench.sizes)
    given.out.mkdir(parents=True, exist_ok=True)
    report = text(found, bench.daemons, asked)
    (given.out / "report.md").write_text(report)
    values = as_json(found, bench.daemons, bench.sizes, asked, about(given.quick, began))
    (given.out / "report.json").write_text(json.dumps(values, indent=1) + "\n")
    plots = [str(given.tools / "python"), str(Path(__file__).parent / "plots.py"), str(given.out)]
    subprocess.run(plots, check=True)
    print(report)


if __name__ == "__main__":
    main()
