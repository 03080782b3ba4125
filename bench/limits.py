"""A cgroup with a CPU quota and a memory limit, as a container has one, under version 1 or 2 of the interface."""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000  # the kubelet's


@dataclass(frozen=True)
class Spent:
    """What the processes of a cgroup used. `peak_bytes` counts the page cache that was charged to them too."""

    cpu_s: float
    peak_bytes: int
    oom_kills: int
    throttled_s: float


class Cgroup:
    """While entered, a cgroup of `cpus` CPUs (0.2 is 200m) and `memory_bytes`; `join` is for the child after fork.

    Source: Linux kernel, admin-guide/cgroup-v1 and cgroup-v2. Needs root.
    """

    def __init__(self, cpus: float, memory_bytes: int) -> None:
        self._cpus, self._memory_bytes = cpus, memory_bytes
        self._name = f"dumpagent-bench-{uuid.uuid4().hex[:8]}"
        self.version = 2 if (_ROOT / "cgroup.controllers").exists() else 1
        self._folders = (
            {name: _ROOT / name / self._name for name in ("cpu", "cpuacct", "memory")}
            if self.version == 1
            else dict.fromkeys(("cpu", "cpuacct", "memory"), _ROOT / self._name)
        )

    def __enter__(self) -> Cgroup:
        if self.version == 2:
            (_ROOT / "cgroup.subtree_control").write_text("+cpu +memory")
        for folder in set(self._folders.values()):
            folder.mkdir(exist_ok=True)
        quota = str(int(self._cpus * _PERIOD_US))
        if self.version == 2:
            self._write("cpu", "cpu.max", f"{quota} {_PERIOD_US}")
            self._write("memory", "memory.max", str(self._memory_bytes))
        else:
            self._write("cpu", "cpu.cfs_period_us", str(_PERIOD_US))
            self._write("cpu", "cpu.cfs_quota_us", quota)
            self._write("memory", "memory.limit_in_bytes", str(self._memory_bytes))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder in set(self._folders.values()):
            for _ in range(100):
                try:
                    folder.rmdir()
                    break
                except OSError:  # a process in it is not reaped yet
                    time.sleep(0.05)

    def join(self, pid: int | None = None) -> None:
        """Move the calling process into the cgroup, or that of `pid`."""
        for folder in set(self._folders.values()):
            (folder / "cgroup.procs").write_text(str(pid or os.getpid()))

    def spent(self) -> Spent:
        """Give what was used so far."""
        if self.version == 2:
            cpu = self._table("cpu", "cpu.stat")
            peak = int(self._read("memory", "memory.peak"))
            return Spent(
                cpu["usage_usec"] / 1e6,
                peak,
                self._table("memory", "memory.events")["oom_kill"],
                cpu["throttled_usec"] / 1e6,
            )
        return Spent(
            int(self._read("cpuacct", "cpuacct.usage")) / 1e9,
            int(self._read("memory", "memory.max_usage_in_bytes")),
            self._table("memory", "memory.oom_control").get("oom_kill", 0),
            self._table("cpu", "cpu.stat")["throttled_time"] / 1e9,
        )

    def _write(self, controller: str, name: str, text: str) -> None:
        (self._folders[controller] / name).write_text(text)

    def _read(self, controller: str, name: str) -> str:
        return (self._folders[controller] / name).read_text()

    def _table(self, controller: str, name: str) -> dict[str, int]:
        lines = (line.split() for line in self._read(controller, name).splitlines())
        return {line[0]: int(line[1]) for line in lines}
