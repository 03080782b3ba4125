"""`dumpagent doctor` on a volume that hangs: it says so, and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.harness.manifests import PROJECT
from tests.mount.node import Node
from tests.mount.volumes import fuse

pytestmark = [pytest.mark.slow]


def test_a_volume_that_hangs_before_the_first_check_does_not_hang_the_doctor(node: Node) -> None:
    """Whether DUMP_ROOT exists was asked before any limit of time was set."""
    with fuse(node, node.pv):
        Path(f"{node.base}/hang").touch()
        began = time.monotonic()
        doctor = node.host.popen(
            [sys.executable, "-m", "dumpagent", "doctor", "--json"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env={
                **os.environ,
                "PYTHONPATH": str(PROJECT),
                "DUMP_ROOT": node.pv,
                "RUNTIME_DIR": f"{node.base}/run",
                "S3_BUCKET": "b",
                "S3_ENDPOINT_URL": "http://127.0.0.1:9",
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "x",
            },
        )
        try:
            out, _ = doctor.communicate(timeout=90)
        finally:
            doctor.kill()
        took_s = time.monotonic() - began
    found = {line["name"]: line for line in map(json.loads, out.splitlines())}
    assert found["volume"]["result"] == "failed"
    assert "hangs" in found["volume"]["seen"]
    assert "credentials" in found, "the checks that ask no volume go on"
    assert took_s < 60
