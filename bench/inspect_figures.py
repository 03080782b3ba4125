"""Measures what a verdict and a histogram cost: `python -m bench.inspect_figures [DUMP] [--mib 850]`.

Without DUMP, a JVM writes one of about 1 GB first (a minute, 2.5 GB of memory). Prints CPU times, which are trustworthy
only on a quiet machine: the best of five is shown beside the median. Exits with 1 where a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.harness.jvm import any_jdk

_MEASURE = """
import json, os, sys, time
from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.upload.volume.judge import CompletenessJudge
from dumpagent.hprof.histogram import count_objects
from dumpagent.hprof.look import Look
from dumpagent.hprof.walk import Walk
from dumpagent.kernel.reading import open_regular

path, what = sys.argv[1:]
status = os.stat(path)
identity = Identity.of(status)
dump = DumpFile(os.path.dirname(path), os.path.basename(path), identity, status.st_dev)
began = time.process_time()
if what == "verdict":
    judge = CompletenessJudge(quiet_s=120)
    verdict = judge.judge(dump)
    while verdict.recheck_s == 0:
        verdict = judge.judge(dump)
    found = verdict.state.value
else:
    with open_regular(path) as opened:
        look = Look(opened)
        look.advance(status.st_size)
        found = count_objects(look.bytes_source, Walk(), most=20).objects
seconds = time.process_time() - began
(line,) = (line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(json.dumps({"seconds": seconds, "memory_mib": int(line.split()[1]) / 1024, "found": found}))
"""


def measure(path: Path, what: str, times: int) -> tuple[list[float], float, object]:
    """Give the CPU seconds of each run, the most memory of any (MiB), and what was found."""
    runs = [
        json.loads(
            subprocess.run(
                [sys.executable, "-c", _MEASURE, str(path), what], check=True, capture_output=True
            ).stdout
        )
        for _ in range(times)
    ]
    return [run["seconds"] for run in runs], max(run["memory_mib"] for run in runs), runs[0]["found"]


def make_dump(folder: Path, mib: int) -> Path:
    """Let a JVM fill `mib` MiB and dump them."""
    path = folder / "large.hprof"
    with any_jdk().start_leaky(folder, xmx_mib=mib * 2 + 200, timeout_s=600) as app:
        app.ask(f"fill {mib}")
        app.ask(f"dump {path} all")
    return path


def main() -> int:
    """Measure, print, and give the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dump", nargs="?", type=Path)
    parser.add_argument("--mib", type=int, default=850)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dumpagent-bench-") as folder:
        path = given.dump or make_dump(Path(folder), given.mib)
        size_bytes = os.stat(path).st_size
        verdict_s, verdict_mib, state = measure(path.resolve(), "verdict", 5)
        count_s, count_mib, objects = measure(path.resolve(), "histogram", 5)
    best_mb_s, median_mb_s = (size_bytes / 1e6 / each for each in (min(count_s), statistics.median(count_s)))
    print(f"dump             {size_bytes / 1e6:.0f} MB, {objects} objects, {state}")
    print(
        f"verdict          {min(verdict_s) * 1e3:.0f} ms CPU (median {statistics.median(verdict_s) * 1e3:.0f}), {verdict_mib:.0f} MiB; promised 60 ms for 1 GB"
    )
    print(
        f"histogram        {best_mb_s:.0f} MB/s (median {median_mb_s:.0f}), {count_mib:.0f} MiB; promised 200 MB/s, 64 MiB"
    )
    return 0 if min(verdict_s) < 0.06 and best_mb_s >= 200 and count_mib < 64 else 1


if __name__ == "__main__":
    sys.exit(main())
