"""The printed coverage: each folder, all of it, and by name what is too low where it matters."""

from __future__ import annotations

import json

from tools.coverage_of_folders import lines, measured


def test_folders_are_summed_and_low_modules_named() -> None:
    files = {
        "dumpagent/upload/loop.py": (100, 90),
        "dumpagent/upload/daemon.py": (100, 50),
        "dumpagent/cli/ls.py": (50, 0),
        "dumpagent/cli/__init__.py": (0, 0),
    }
    report = {
        path: {"summary": {"num_statements": total, "covered_lines": run}}
        for path, (total, run) in files.items()
    }
    assert lines(measured(json.dumps({"files": report}))) == [
        " 56.0 %  all",
        "  0.0 %  dumpagent/cli",
        " 70.0 %  dumpagent/upload",
        "below 80 %: dumpagent/upload/daemon.py 50.0 %",
    ]
