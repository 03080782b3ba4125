"""CPU limits and CPU use of a group of processes, by cgroup v1 or v2, whichever this machine has."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

_V1, _V1_USE, _V2 = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


class Group:
    """A cgroup with a CPU limit in millicores (None: no limit), as the kubelet sets it; removed at the end."""

    def __init__(self, millicores: int | None) -> None:
        name = f"dumpagent-bench-{os.getpid()}-{time.monotonic_ns()}"
        quota = -1 if millicores is None else millicores * _PERIOD_US // 1000
        if (_V1 / "cpu.cfs_quota_us").exists():
            self.folders = [_V1 / name, _V1_USE / name]
            for folder in self.folders:
                folder.mkdir(exist_ok=True)
            (_V1 / name / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
            (_V1 / name / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            self.folders = [_V2 / name]
            self.folders[0].mkdir()
            if millicores is not None:
                (self.folders[0] / "cpu.max").write_text(f"{quota} {_PERIOD_US}")

    def join(self, pid: int = 0) -> None:
        """Move the process `pid` (0: the caller; children are born inside) into the group."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    @property
    def procs_files(self) -> list[str]:
        """Give the files that a shell can `echo $$` into before it starts a program."""
        return [str(folder / "cgroup.procs") for folder in self.folders]

    def used_s(self) -> float:
        """Give the CPU seconds that all members, living and dead, have used."""
        if len(self.folders) == 2:
            return int((self.folders[1] / "cpuacct.usage").read_text()) / 1e9
        words = (self.folders[0] / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) / 1e6

    def __enter__(self) -> Group:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for folder in self.folders:
            for _ in range(100):
                try:
                    folder.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)  # the last member is still on its way out


def percentile(values: list[float], percent: float) -> float:
    """Give the value that `percent` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
