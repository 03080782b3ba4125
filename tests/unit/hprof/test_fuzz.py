"""A short run of the fuzzer; `make fuzz` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_mutated_dumps_crash_nothing_hang_nothing_and_take_no_memory() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--dumps", "300", "--seed", "1000000"],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert "300 mutated dumps" in ran.stdout
