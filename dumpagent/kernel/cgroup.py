"""What the container that this process runs in may use."""

from __future__ import annotations

_ROOT, _PROC = "/sys/fs/cgroup", "/proc/self/cgroup"


def memory_limit_bytes(*, root: str = _ROOT, proc: str = _PROC) -> int | None:
    """Give what memory this process's cgroup may use, None if it has no limit or it cannot be told.

    Above memory.high (the kubelet's MemoryQoS sets it) the kernel slows every allocation down: it counts as a limit.
    Source: Linux kernel, admin-guide/cgroup-v2 (memory.max, memory.high), cgroup-v1/memory (memory.limit_in_bytes).
    """
    found = []
    for path in ("", *_paths(proc, "memory")):
        for file in (
            f"{root}{path}/memory.max",
            f"{root}{path}/memory.high",
            f"{root}/memory{path}/memory.limit_in_bytes",
        ):
            try:
                with open(file, encoding="ascii") as limit:
                    found.append(int(limit.read()))
            except (OSError, ValueError):
                continue  # not this version of cgroups, or "max"
    least = min(found, default=_NO_LIMIT)
    return least if least < _NO_LIMIT else None


_NO_LIMIT = 1 << 60  # version 1 says 2^63 less a page


def cpu_limit_cores(*, root: str = _ROOT, proc: str = _PROC) -> float | None:
    """Give the CPU seconds per second that this process's cgroup may use, None if no limit is known.

    Source: Linux kernel, admin-guide/cgroup-v2 (cpu.max), scheduler/sched-bwc (cpu.cfs_quota_us, cpu.cfs_period_us).
    """
    found = []
    for path in ("", *_paths(proc, "cpu")):
        for files in (
            (f"{root}{path}/cpu.max",),
            *(_v1(f"{root}/{name}{path}") for name in ("cpu", "cpu,cpuacct")),
        ):
            try:
                quota, period = _words(files)
                if int(quota) > 0:  # version 1 says -1
                    found.append(int(quota) / int(period))
            except (OSError, ValueError, ZeroDivisionError):
                continue  # not this version of cgroups, or "max"
    return min(found, default=None)


def _v1(directory: str) -> tuple[str, ...]:
    return f"{directory}/cpu.cfs_quota_us", f"{directory}/cpu.cfs_period_us"


def _words(files: tuple[str, ...]) -> list[str]:
    words: list[str] = []
    for name in files:
        with open(name, encoding="ascii") as file:
            words += file.read().split()
    return words


def _paths(proc: str, controller: str) -> list[str]:
    try:
        with open(proc, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    return [
        path
        for _, controllers, path in (line for line in lines if len(line) == 3)
        if (not controllers or controller in controllers.split(",")) and path != "/" and ".." not in path
    ]
