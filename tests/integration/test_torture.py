"""A short torture on the two real stores; `make torture` is the long one."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.harness import children
from tests.harness.fixtures import need


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("store", ["swift", "ceph"])
def test_nothing_is_lost_doubled_overwritten_or_left_open(store: str) -> None:
    """And each fault came at least once: the run goes on until it did."""
    need("nsenter", *(["ceph-mon", "ceph-osd", "radosgw"] if store == "ceph" else []))
    running = children.start(
        [sys.executable, "-m", "tests.torture", "--store", store, "--cycles", "15"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    said, _ = running.communicate(timeout=1750)
    print(said.decode())
    assert running.returncode == 0, said.decode()[-6000:]
