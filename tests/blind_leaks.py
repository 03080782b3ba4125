"""Leaks that were thought of after the rules were written: who is named as their holder?  `make soak-leaks`

    python -m tests.blind_leaks [JDK ...]

Each leak of BlindLeaks.java, with each JDK and collector, goes through `analyze` and through the agent's summary. Ends
with 1 where `analyze` does not name the holder first, or the summary names fewer than 15 of 18.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from dumpagent.analyze.analysis import Subject, Wishes, analyze
from dumpagent.analyze.memory import Budget
from dumpagent.hprof.source import InMemory
from dumpagent.summary.summarise import summarise
from tests.harness.jvm import Jdk, pinned_jdk
from tests.harness.leaks import BLIND_HOLDERS, COLLECTORS, dump_blind_leak

JDKS = ["11.0.13.1", "17.0.9.2", "21.0.8.2", "25.0.2.1"]
SUMMARISED_LEAST = 15


def named(jdk: Jdk, leak: str, collector: str, folder: Path) -> tuple[str, str]:
    """Give whom `analyze` names first, with at least 30 % of the heap, and whom the summary names."""
    path = folder / f"{leak}.hprof"
    dump_blind_leak(jdk, leak, path, options=COLLECTORS[collector])
    content = path.read_bytes()
    path.unlink()
    analysis = analyze(
        InMemory(content),
        Subject("x", len(content)),
        Budget(1 << 40, lambda _text: None),
        wishes=Wishes(),
        step=lambda _title: lambda _bytes: None,
    )
    first = analysis.suspects[0] if analysis.suspects else None
    report = summarise(InMemory(content), size_bytes=len(content), cpu_s=time.process_time)
    return (
        first.holder if first and first.share > 0.3 else "nobody",
        report.owner.name if report and report.owner else "nobody",
    )


def main() -> None:
    """Print a line for each JDK and collector, and what is wrong."""
    failed = False
    for version in sys.argv[1:] or JDKS:
        for collector in COLLECTORS:
            with tempfile.TemporaryDirectory() as folder:
                found = {
                    leak: named(pinned_jdk(version), leak, collector, Path(folder)) for leak in BLIND_HOLDERS
                }
            wrong = {leak: found[leak][0] for leak in found if BLIND_HOLDERS[leak] not in found[leak][0]}
            missed = {leak: found[leak][1] for leak in found if BLIND_HOLDERS[leak] not in found[leak][1]}
            print(
                f"{version} {collector}: analyze {len(found) - len(wrong)} of {len(found)} {wrong or ''},"
                f" summary {len(found) - len(missed)} {missed or ''}",
                flush=True,
            )
            failed = failed or bool(wrong) or len(found) - len(missed) < SUMMARISED_LEAST
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
