"""The way of a dump from the scan to its receipt stays as short as it is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_a_dump_goes_through_no_more_modules_than_a_reader_can_follow() -> None:
    """Counted while one `upload --once` stores one dump; the walk itself fails where it does not come to a receipt."""
    done = subprocess.run(
        [sys.executable, "-m", "tools.walk_of_a_dump"],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "upload/volume/finder.py" in done.stdout
