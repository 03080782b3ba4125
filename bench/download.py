"""What fetching a dump costs over lines of any length and width, side by side with `aws s3 cp`.

python -m bench.download --tools VENV/bin [--rtt-ms 50] [--mbit 0 100] [--size-mib 1024] [--times 3]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.clients import Job, environment
from bench.dumps import heap_dump, large_file
from bench.measure import Cost, run, warm
from bench.stage import BUCKET, REPOSITORY
from tests.harness.children import end, start

AGENT, AWS = "dumpagent get", "aws s3 cp"
_KEY = "shop/checkout/java_pid1.hprof"


@dataclass(frozen=True)
class Place:
    """Where a dump can be fetched from: `at` is the address of the far end of a line."""

    at: str
    ca: Path
    dump: Path
    folder: Path


@contextmanager
def place(dump: Path, *, scheme: str, rtt_ms: float, mbit: float) -> Iterator[Place]:
    """Serve the dump at the end of a line while the block runs."""
    folder = Path(tempfile.mkdtemp(prefix="dumpagent-bench-get-"))
    children: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> str:
        argv = [sys.executable, "-m", *words]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        child = start(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=env)
        children.append(child)
        assert child.stdout is not None
        return str(child.stdout.readline())

    try:
        words = ("--file", str(dump), "--crc32", _crc32(dump), "--certificates", str(folder))
        said = begin("bench.source", *words).split()
        port = {said[0]: said[1], said[2]: said[3]}[scheme]
        if rtt_ms or mbit:
            port = begin("bench.line", "--to", port, "--rtt-ms", str(rtt_ms), "--mbit", str(mbit)).strip()
        yield Place(f"{scheme}://127.0.0.1:{port}", folder / "ca.pem", dump, folder)
    finally:
        for child in reversed(children):
            end(child)
        shutil.rmtree(folder, ignore_errors=True)


def _crc32(path: Path) -> str:
    crc32 = 0
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            crc32 = zlib.crc32(chunk, crc32)
    return f"{crc32:08x}"


def argv_of(client: str, tools: Path, at: Place, target: Path) -> list[str]:
    """Give the command by which `client` fetches the dump to `target`."""
    if client == AGENT:
        return [
            *(sys.executable, "-m", "dumpagent", "get", _KEY, "--output", str(target)),
            *("--s3-bucket", BUCKET, "--s3-endpoint-url", at.at),
        ]
    return [
        *(str(tools / "python"), str(tools / "aws"), "s3", "cp", f"s3://{BUCKET}/{_KEY}", str(target)),
        *("--endpoint-url", at.at, "--only-show-errors"),
    ]


def fetch_once(client: str, tools: Path, at: Place) -> Cost:
    """Fetch the dump and give what it cost. Raises RuntimeError unless it arrived whole."""
    scratch = Path(tempfile.mkdtemp(dir=at.folder))
    target = scratch / "java_pid1.hprof"
    job = Job(at.dump, scratch, at.at, at.ca, BUCKET, _KEY)
    cost = run(
        argv_of(client, tools, at, target),
        env={**environment(job), "PYTHONPATH": str(REPOSITORY)},
        said_in=scratch / "said",
    )
    try:
        if cost.exit_code:
            raise RuntimeError(f"{client}: exit {cost.exit_code}: {cost.said[-1000:]}")
        if subprocess.run(["cmp", "--silent", str(at.dump), str(target)], check=False).returncode:
            raise RuntimeError(f"{client} fetched other bytes than were there")
        return cost
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def figures(
    tools: Path, dump: Path, *, rtt_ms: float, mbit: float, times: int, scheme: str = "https"
) -> dict[str, float]:
    """Give the medians of `times` fetches by each client, in turns; the ratios are those of each pair."""
    clients = (AGENT, AWS)
    costs: dict[str, list[Cost]] = {client: [] for client in clients}
    with place(dump, scheme=scheme, rtt_ms=rtt_ms, mbit=mbit) as at:
        warm(dump)
        for number in range(times):
            for client in clients if number % 2 == 0 else reversed(clients):
                costs[client].append(fetch_once(client, tools, at))
    pairs = list(zip(costs[AGENT], costs[AWS], strict=True))
    return {
        "size_bytes": dump.stat().st_size,
        "times": times,
        "wall_s": statistics.median(cost.wall_s for cost in costs[AGENT]),
        "cpu_s": statistics.median(cost.cpu_s for cost in costs[AGENT]),
        "rss_bytes": max(cost.rss_bytes for cost in costs[AGENT]),
        "aws_wall_s": statistics.median(cost.wall_s for cost in costs[AWS]),
        "aws_cpu_s": statistics.median(cost.cpu_s for cost in costs[AWS]),
        "aws_rss_bytes": max(cost.rss_bytes for cost in costs[AWS]),
        "speed_to_aws": statistics.median(aws.wall_s / ours.wall_s for ours, aws in pairs),
        "cpu_to_aws": statistics.median(ours.cpu_s / aws.cpu_s for ours, aws in pairs),
    }


def main() -> None:
    """Print the figures of the wanted lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tools", type=Path, required=True)
    parser.add_argument("--rtt-ms", type=float, nargs="+", default=[50])
    parser.add_argument("--mbit", type=float, nargs="+", default=[0, 1000, 100])
    parser.add_argument("--size-mib", type=int, default=1024)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--scheme", default="https")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dumpagent-bench-") as folder:
        dump = large_file(Path(folder), given.size_mib << 20, pattern=heap_dump(256))
        for rtt_ms in given.rtt_ms:
            for mbit in given.mbit:
                found = figures(
                    given.tools, dump, rtt_ms=rtt_ms, mbit=mbit, times=given.times, scheme=given.scheme
                )
                told = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
                print(f"rtt {rtt_ms:g} ms, {mbit:g} Mbit/s: {told}", flush=True)


if __name__ == "__main__":
    main()
