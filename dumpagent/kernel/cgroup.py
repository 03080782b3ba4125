"""What the container that this process runs in may use."""

from __future__ import annotations


def memory_limit_bytes(*, root: str = "/sys/fs/cgroup", proc: str = "/proc/self/cgroup") -> int | None:
    """Give the memory limit of this process's cgroup, None if it has none or it cannot be told.

    Source: Linux kernel, admin-guide/cgroup-v2 (memory.max), cgroup-v1/memory (memory.limit_in_bytes).
    """
    found = []
    for path in ("", *_paths(proc)):
        for file in (f"{root}{path}/memory.max", f"{root}/memory{path}/memory.limit_in_bytes"):
            try:
                with open(file, encoding="ascii") as limit:
                    found.append(int(limit.read()))
            except (OSError, ValueError):
                continue  # not this version of cgroups, or "max"
    least = min(found, default=_NO_LIMIT)
    return least if least < _NO_LIMIT else None


_NO_LIMIT = 1 << 60  # version 1 says 2^63 less a page


def _paths(proc: str) -> list[str]:
    try:
        with open(proc, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return []
    return [
        path
        for _, controllers, path in (line for line in lines if len(line) == 3)
        if (not controllers or "memory" in controllers.split(",")) and path != "/" and ".." not in path
    ]
