"""POD_EVENTS in the real daemon: settings, token and API server as a pod has them."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from dumpagent.notify.api_server import ACCOUNT
from tests.harness import children
from tests.harness.api_server import POD, Cluster
from tests.harness.hprof import Maker
from tests.harness.stores.server import StoreServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts the token where a pod has it: needs root"),
]


def test_the_daemon_puts_an_event_on_the_pod_that_crashed(moto: StoreServer, tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    root = tmp_path / "dump"
    root.mkdir()
    host, _, port = cluster.address.partition(":")
    bucket = moto.new_bucket()
    environment = {
        **os.environ, **moto.environment(bucket), "DUMP_ROOT": str(root), "FILE_STABLE_TIME": "0",
        "RUNTIME_DIR": str(tmp_path / "run"), "NODE_NAME": "worker-1", "POD_NAME": "heap-dump-s3-uploader-0",
        "POD_EVENTS": "true", "KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port,
    }  # fmt: skip
    in_a_pod = (
        f"mount -t tmpfs none /run && mkdir -p {ACCOUNT} && mount --bind {cluster.account} {ACCOUNT} && exec"
    )
    log = tmp_path / "log"
    with log.open("wb") as out:
        daemon = children.start(
            ["unshare", "-m", "sh", "-c", f'{in_a_pod} "$@"', "sh", sys.executable, "-m", "dumpagent", "upload"],
            env=environment, stderr=out,
        )  # fmt: skip
    try:
        (root / "shop_checkout-7d4b9-x2x.hprof").write_bytes(Maker().dump())
        until = time.monotonic() + 60
        while not cluster.events():
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
    finally:
        children.end(daemon)
        cluster.shutdown()
        cluster.server_close()
    (event,) = [event for event in cluster.events() if event["reason"] == "HeapDumpStored"]
    assert event["involvedObject"]["uid"] == POD["metadata"]["uid"]
    assert event["reportingInstance"] == "heap-dump-s3-uploader-0"
    assert event["message"].endswith("dumpagent get shop_checkout-7d4b9-x2x.hprof")
    assert "first-token" not in log.read_text()
