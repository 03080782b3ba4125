"""Where uploads are measured: the sink, lines to it of any length and width, folders, and the check of what arrived."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from isal import isal_zlib

from bench.clients import Client, Job, environment
from bench.limits import Cgroup
from bench.measure import Cost, drop_cached, run, warm
from tests.harness.children import end, start

REPOSITORY = Path(__file__).parents[1]
BUCKET = "bench"


@dataclass(frozen=True)
class Conditions:
    """What one upload meets. `cpus` and `memory_bytes` 0: no limits. `cold`: the dump is not in the page cache."""

    scheme: str = "https"
    rtt_ms: float = 0
    mbit: float = 0
    cpus: float = 0
    memory_bytes: int = 0
    cold: bool = False


@dataclass(frozen=True)
class Sample:
    """One upload that arrived whole."""

    client: str
    conditions: Conditions
    size_bytes: int
    cost: Cost
    wire_bytes: int
    requests: int
    connections: int


class Failed(Exception):
    """An upload did not end well, or what arrived is not what was sent."""


class Stage:
    """While entered, a sink runs; lines to it are started when first asked for. Everything ends with it."""

    def __init__(self) -> None:
        self._folder = Path()
        self._children: list[subprocess.Popen[str]] = []
        self._ports: dict[str, int] = {}
        self._lines: dict[tuple[str, float, float], int] = {}
        self._crc32s: dict[Path, int] = {}
        self._uploads = 0

    def __enter__(self) -> Stage:
        self._folder = Path(tempfile.mkdtemp(prefix="dumpagent-bench-"))
        said = self._start("bench.sink", "--certificates", str(self._folder)).split()
        self._ports = {said[0]: int(said[1]), said[2]: int(said[3])}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in reversed(self._children):
            end(child)
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def ca(self) -> Path:
        return self._folder / "ca.pem"

    def endpoint_url(self, conditions: Conditions) -> str:
        """Give the address of the sink at the end of the wanted line."""
        port = self._ports[conditions.scheme]
        if conditions.rtt_ms or conditions.mbit:
            line = (conditions.scheme, conditions.rtt_ms, conditions.mbit)
            if line not in self._lines:
                words = (
                    "--to",
                    str(port),
                    "--rtt-ms",
                    str(conditions.rtt_ms),
                    "--mbit",
                    str(conditions.mbit),
                )
                self._lines[line] = int(self._start("bench.line", *words))
            port = self._lines[line]
        return f"{conditions.scheme}://127.0.0.1:{port}"

    def upload(self, client: Client, dump: Path, conditions: Conditions) -> Sample:
        """Let `client` upload `dump` once. Raises Failed unless it arrived byte for byte (compressed: arrived)."""
        self._uploads += 1
        scratch = self._folder / f"run{self._uploads}"
        scratch.mkdir()
        prefix = f"run{self._uploads}"
        job = Job(dump, scratch, self.endpoint_url(conditions), self.ca, BUCKET, f"{prefix}/{dump.name}")
        self.ask("POST", "/_forget")
        (drop_cached if conditions.cold else warm)(dump)
        env = {**environment(job), "PYTHONPATH": str(REPOSITORY)}
        said_in = scratch / "said"
        if conditions.cpus:
            with Cgroup(conditions.cpus, conditions.memory_bytes) as cgroup:
                cost = run(client.argv(job), env=env, cgroup=cgroup, said_in=said_in)
        else:
            cost = run(client.argv(job), env=env, said_in=said_in)
        report = self.ask("GET", "/_report")
        shutil.rmtree(scratch, ignore_errors=True)
        size_bytes = dump.stat().st_size
        self._confirm(client, dump, report, cost)
        return Sample(
            client.name,
            conditions,
            size_bytes,
            cost,
            report["wire_bytes"],
            report["requests"],
            report["connections"],
        )

    def _confirm(self, client: Client, dump: Path, report: dict[str, Any], cost: Cost) -> None:
        what = f"{client.name}: exit {cost.exit_code}"
        if cost.cgroup and cost.cgroup.oom_kills:
            raise Failed(f"{what}, killed for its memory")
        if cost.exit_code:
            raise Failed(f"{what}: {cost.said[-2000:]}")
        if len(report["objects"]) != 1:
            raise Failed(f"{what}, and the sink holds {len(report['objects'])} objects: {cost.said[-2000:]}")
        (stored,) = report["objects"].values()
        if not client.compresses and stored["crc32"] != self._crc32_of(dump):
            raise Failed(f"{what}, and the sink holds other bytes than were sent")

    def _crc32_of(self, dump: Path) -> int:
        if dump not in self._crc32s:
            crc32, buffer = 0, bytearray(1 << 20)
            with open(dump, "rb", buffering=0) as file:
                while got := file.readinto(buffer):
                    crc32 = isal_zlib.crc32(memoryview(buffer)[:got], crc32)
            self._crc32s[dump] = crc32
        return self._crc32s[dump]

    def ask(self, method: str, path: str) -> Any:
        """Ask the sink itself, past S3: /_report, /_forget."""
        connection = http.client.HTTPConnection("127.0.0.1", self._ports["http"], timeout=60)
        try:
            connection.request(method, path)
            content = connection.getresponse().read()
        finally:
            connection.close()
        return json.loads(content) if content else None

    def _start(self, module: str, *words: str) -> str:
        argv = [sys.executable, "-m", module, *words]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        child = start(
            argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=env, start_new_session=True
        )
        self._children.append(child)
        assert child.stdout is not None
        return str(child.stdout.readline())
