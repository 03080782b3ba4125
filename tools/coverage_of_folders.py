"""Prints what share of each folder's lines the measured tests have run, and names the modules below the mark.

python -m tools.coverage_of_folders REPORT.json    (written by `coverage json`)
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

WATCHED = ("dumpagent/upload/", "dumpagent/mount/", "dumpagent/store/")
MARK_PERCENT = 80


@dataclass(frozen=True)
class Measured:
    """One module: how many lines it has that can run, and how many of them did."""

    path: str
    lines: int
    run: int

    @property
    def percent(self) -> float:
        return 100 * self.run / self.lines if self.lines else 100.0


def measured(report: str) -> list[Measured]:
    """Give the modules of a report. Source: coverage.py, "JSON reporting", files.*.summary."""
    files = json.loads(report)["files"]
    return [
        Measured(path, found["summary"]["num_statements"], found["summary"]["covered_lines"])
        for path, found in sorted(files.items())
    ]


def lines(modules: list[Measured]) -> list[str]:
    """Give what is printed: a line per folder, one for all, one for each watched module below the mark."""
    total: Counter[str] = Counter()
    run: Counter[str] = Counter()
    for module in modules:
        for key in (str(Path(module.path).parent), "all"):
            total[key] += module.lines
            run[key] += module.run
    said = [f"{100 * run[key] / total[key]:5.1f} %  {key}" for key in sorted(total) if total[key]]
    said += [
        f"below {MARK_PERCENT} %: {module.path} {module.percent:.1f} %"
        for module in modules
        if module.path.startswith(WATCHED) and module.percent < MARK_PERCENT
    ]
    return said


if __name__ == "__main__":
    print("\n".join(lines(measured(Path(sys.argv[1]).read_text()))))
