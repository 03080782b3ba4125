"""What the agent needs of its container, tried in one that lacks it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.hprof import Maker
from tests.harness.stores.server import HOST, free_ports

_DROPPED = "-dac_override,-dac_read_search"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away and drop capabilities")
def test_dumps_of_other_users_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """As uid 0 without DAC_OVERRIDE: what an application writes is 0600 and its own."""
    dump = tmp_path / "java_pid1.hprof"
    dump.write_bytes(Maker().dump())
    dump.chmod(0o600)
    os.chown(dump, 1000, 1000)
    (port,) = free_ports(1)
    said = subprocess.run(
        ["setpriv", f"--bounding-set={_DROPPED}", f"--inh-caps={_DROPPED}", sys.executable, "-m", "dumpagent", "doctor", "--json"],
        env=os.environ | {"DUMP_ROOT": str(tmp_path), "S3_BUCKET": "b", "S3_ENDPOINT_URL": f"http://{HOST}:{port}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 1
    found = {finding["name"]: finding for finding in map(json.loads, said.stdout.splitlines())}
    assert "DAC_OVERRIDE" in found["rights"]["seen"]
    assert "LEASE" not in found["rights"]["seen"]
    assert found["dumps"]["result"] == "failed"
    assert "java_pid1.hprof: Permission denied" in found["dumps"]["seen"]
    assert "DAC_OVERRIDE" in found["dumps"]["fix"]
