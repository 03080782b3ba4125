"""Real daemons, a real store, a real Prometheus with the shipped alerts: a fault comes, and everybody is told."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.harness import children
from tests.harness.faults import Fault, FaultProxy, always
from tests.harness.hprof import Maker
from tests.harness.stores.server import HOST, StoreServer, free_ports
from tests.monitoring.prometheus import Prometheus
from tests.mount.node import Node, eventually
from tools.dashboard import queries

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.needs("prometheus")]
SECRET = "wJalrXUtnFEMI-the-secret"


class World:
    """One node with both daemons, their store behind a proxy that can break, and a Prometheus that watches."""

    def __init__(self, folder: Path, moto: StoreServer) -> None:
        self.folder, self.moto = folder, moto
        self.node = Node(folder / "node")
        self.proxy = FaultProxy(moto, hang_s=60)
        self.bucket = moto.new_bucket()
        self.mount_port, self.upload_port = free_ports(2)
        self.manager = self.node.manager(
            env={"METRICS_PORT": str(self.mount_port), "METRICS_ADDRESS": HOST}
        ).ready()
        self.container = self.node.app()
        self.log = folder / "uploader.log"
        self.environment = {
            **os.environ, **self.proxy.server.environment(self.bucket), "AWS_SECRET_ACCESS_KEY": SECRET,
            "DUMP_ROOT": self.node.dumps, "RUNTIME_DIR": str(folder / "run"), "NODE_NAME": "worker-1",
            "WATCH_INTERVAL": "1", "FILE_STABLE_TIME": "0", "STORE_CHECK_INTERVAL": "3", "LOG_LEVEL": "debug",
            "METRICS_PORT": str(self.upload_port), "METRICS_ADDRESS": HOST, "LOCAL_KEEP": "always",
            "NOTIFY_URL": f"http://{HOST}:1/T0/{SECRET}",
        }  # fmt: skip
        with self.log.open("wb") as out:
            self.uploader = self.container.popen(
                [sys.executable, "-m", "dumpagent", "upload"], env=self.environment, stderr=out
            )
        self.prometheus = Prometheus(folder, {
            f"{HOST}:{self.mount_port}": {"node": "worker-1", "pod": "dump-volume-manager-0"},
            f"{HOST}:{self.upload_port}": {"node": "worker-1", "pod": "heap-dump-s3-uploader-0"},
        })  # fmt: skip
        self.prometheus.__enter__()

    def dump(self, name: str, content: bytes | None = None) -> None:
        """Let an application write a dump."""
        path = self.folder / name
        path.write_bytes(Maker().dump() if content is None else content)
        self.container.run(
            "__import__('shutil').copy(path, to)", path=str(path), to=f"{self.node.dumps}/{name}"
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.read_bytes().split(b"\n") if line.startswith(b"{")]
        return [line for line in lines if line["event"] == name]

    def doctor(self) -> dict[str, dict[str, str]]:
        """Give what the doctor says in the uploader's container, by check; of two the worse."""
        asked = self.container.popen(
            [sys.executable, "-m", "dumpagent", "doctor", "--json"],
            env=self.environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        said, _ = asked.communicate(timeout=120)
        return {finding["name"]: finding for finding in map(json.loads, said.splitlines())}

    def close(self) -> None:
        self.prometheus.__exit__(None, None, None)
        children.end(self.uploader)
        self.node.close()
        self.proxy.__exit__(None, None, None)


@pytest.fixture
def world(tmp_path: Path, moto: StoreServer) -> Iterator[World]:
    running = World(tmp_path, moto)
    running.dump("first.hprof")
    eventually(lambda: running.events("dump_uploaded"), "the first dump is stored")
    try:
        yield running
    finally:
        running.close()


def test_with_no_fault_nothing_fires_every_panel_has_data_and_no_secret_is_told(world: World) -> None:
    world.manager.container.run("umount(path, 2)", path=world.node.target)
    world.manager.told("mount_restored")
    world.dump("second.hprof")
    eventually(lambda: len(world.events("dump_uploaded")) == 2)
    empty = [(title, query.replace('"$node"', '".*"')) for title, query in queries()]

    def still_empty() -> list[tuple[str, str]]:
        empty[:] = [(title, query) for title, query in empty if not world.prometheus.query(query)]
        return empty

    # The ranges of the dashboard need two scrapes; with one a second that is soon.
    eventually(lambda: not still_empty(), f"panels without data: {empty}", within_s=60)
    assert world.prometheus.firing() == set()
    seen, uploaded, failed, pending = (
        float(world.prometheus.query(f"dumpagent_dumps_{name}")[0]["value"][1])
        for name in ("seen_total", "uploaded_total", "failed_total", "pending")
    )
    assert seen == uploaded + failed + pending == 2
    world.doctor()
    for text in (world.log.read_text(), world.manager.log_path.read_text()):
        assert SECRET not in text


@dataclass(frozen=True)
class Case:
    """A fault, how it comes about, and who must tell of it."""

    name: str
    strike: Callable[[World], object]
    alert: str
    event: str  # of the uploader's log; of the manager's if it begins with "mount:"
    checks: tuple[str, ...]  # of the doctor: one of them must not be ok


def _delete_bucket(world: World) -> None:
    client = world.moto.client()
    for found in client.list_objects_v2(Bucket=world.bucket).get("Contents", []):
        client.delete_object(Bucket=world.bucket, Key=found["Key"])
    client.delete_bucket(Bucket=world.bucket)


def _break_store(fault: Fault) -> Callable[[World], object]:
    def strike(world: World) -> None:
        world.proxy.plan = always(fault)

    return strike


def _slow_store(world: World) -> None:
    world.proxy.plan = always(Fault.HANG)
    world.dump("waits.hprof")


def _fill(world: World) -> None:
    code = (
        "f = open(path, 'wb')\ntry:\n    while True: f.write(bytes(1 << 20)); f.flush()\n"
        "except OSError: pass\nfinally:\n    try: f.close()\n    except OSError: pass"
    )
    world.node.host.run(code, path=f"{world.node.pv}/filler")


def _kill(world: World) -> None:
    world.uploader.kill()
    world.uploader.wait()


def _lose_mount(world: World) -> None:
    world.manager.process.send_signal(signal.SIGSTOP)
    world.node.host.run("umount(path, 2)", path=f"{world.node.mnt}/dump")


CASES = [
    Case("bucket deleted", _delete_bucket, "DumpStoreUnreachable", "store_failed", ("bucket",)),
    Case("key revoked", _break_store(Fault.KEY_REVOKED), "DumpStoreUnreachable", "store_failed", ("bucket",)),
    Case("clock off by an hour", _break_store(Fault.CLOCK_SKEWED), "DumpStoreUnreachable", "store_failed", ("clock", "bucket")),
    Case("S3 answers 500", _break_store(Fault.ERROR_500), "DumpStoreUnreachable", "store_failed", ("bucket",)),
    Case("slow S3", _slow_store, "DumpPendingTooLong", "dump_found", ("connection", "bucket")),
    Case("PV full", _fill, "DumpVolumeUnusable", "mount:backend_full", ("volume writes", "space")),
    Case("mount lost, and its manager hangs", _lose_mount, "DumpAgentDown", "", ("mount",)),
    Case("truncated dump", lambda world: world.dump("cut.hprof", Maker().dump()[:-9]), "DumpTruncated",
         "dump_uploaded", ("dumps",)),
    Case("agent killed", _kill, "DumpAgentDown", "", ("daemon",)),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_fault_is_told_by_alert_log_and_doctor(case: Case, world: World) -> None:
    case.strike(world)
    eventually(lambda: case.alert in world.prometheus.firing(), f"{case.alert} fires", within_s=90)
    if case.event.startswith("mount:"):
        told = world.manager.events(case.event.removeprefix("mount:"))
        assert len(told) == 1, "once, however long it lasts"
        assert told[0]["error"]
    elif case.event:
        told = world.events(case.event)
        assert told
        if case.event == "store_failed":
            assert len(told) == 1, "once, however long it lasts"
            assert told[0]["hint"]
    findings = world.doctor()
    named = [
        findings[name]
        for name in case.checks
        if name in findings and findings[name]["result"] in ("warning", "failed")
    ]
    assert named, findings
    assert all(finding["fix"] for finding in named)
