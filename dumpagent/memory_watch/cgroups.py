"""Finds the pods' cgroups on the node, and reads what their memory does. Read-only; no process is looked at.

Source: Linux kernel, admin-guide/cgroup-v2 (memory.*, PSI), admin-guide/cgroup-v1/memory; Kubernetes,
pkg/kubelet/cm (names of pod cgroups); CRI-O, containerd (names of container scopes).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_UID = r"[0-9a-f]{4,}(?:[-_][0-9a-f]+)*"
_POD = re.compile(rf"(?:kubepods(?:-burstable|-besteffort)?-)?pod(?P<uid>{_UID})(?:\.slice)?")
_CONTAINER = re.compile(r"(?:(?:crio|cri-containerd|docker|libpod)-)?(?P<id>[0-9a-zA-Z][\w.-]*?)(?:\.scope)?")
_NOT_CONTAINERS = re.compile(r"crio-conmon-.*|init\.scope")
_QOS = ("", "kubepods-burstable.slice", "kubepods-besteffort.slice", "burstable", "besteffort")
_NO_LIMIT = 1 << 60  # version 1 says 2^63 less a page


@dataclass(frozen=True, slots=True)
class Figures:
    """The memory of one cgroup at one moment, in bytes; None: not told by this kernel.

    `processes` counts those of the cgroup itself. `oom_kills` counts processes that the kernel killed in it; of
    version 2 in all below it, too. `pressure_percent` is PSI's "some" of the last 10 s. `high` is where the kernel
    begins to slow allocations down (memory.high); `refused_processes` counts those that pids.max refused.
    """

    current: int
    limit: int | None
    anonymous: int
    page_cache: int
    shared: int
    oom_kills: int
    processes: int = 0
    pressure_percent: float | None = None
    high: int | None = None
    most_processes: int | None = None
    refused_processes: int = 0


@dataclass(frozen=True, slots=True)
class PodCgroup:
    """The cgroup of a pod, which stays while its containers come and go."""

    uid: str
    path: str
    containers: dict[str, str] = field(default_factory=dict)  # the runtime's id -> path


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The tree of memory cgroups at `root`, of version 1 or 2."""

    root: str
    version: int


def hierarchy(mounted_at: str = "/sys/fs/cgroup") -> Hierarchy:
    """Find the tree below the mount. Raises FileNotFoundError when there is none with memory in it."""
    if os.path.exists(f"{mounted_at}/cgroup.controllers"):
        return Hierarchy(mounted_at, 2)
    for name in ("memory", ""):
        if os.path.exists(f"{mounted_at}/{name}/memory.oom_control") or os.path.exists(
            f"{mounted_at}/{name}/memory.usage_in_bytes"
        ):
            return Hierarchy(f"{mounted_at}/{name}".rstrip("/"), 1)
    raise FileNotFoundError(f"{mounted_at}: no memory cgroups")


def pods(tree: Hierarchy) -> Iterator[PodCgroup]:
    """Give each pod's cgroup with its containers'. Raises OSError when the tree of pods cannot be listed."""
    for top in ("kubepods.slice", "kubepods", "kubelet/kubepods"):
        if os.path.isdir(f"{tree.root}/{top}"):
            for qos in _QOS:
                yield from _pods_in(f"{tree.root}/{top}/{qos}".rstrip("/"))


def _pods_in(folder: str) -> Iterator[PodCgroup]:
    for name, path in _folders(folder):
        if found := _POD.fullmatch(name):
            containers = {
                scope["id"]: _inner(below)
                for child, below in _folders(path)
                if not _NOT_CONTAINERS.fullmatch(child) and (scope := _CONTAINER.fullmatch(child))
            }
            yield PodCgroup(found["uid"].replace("_", "-"), path, containers)


def _inner(scope: str) -> str:
    """Give where the limit of a container stands: CRI-O with crun puts it one level below the scope."""
    inner = f"{scope}/container"
    return inner if os.path.isdir(inner) else scope


def _folders(folder: str) -> list[tuple[str, str]]:
    try:
        with os.scandir(folder) as entries:
            return [(entry.name, entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []  # it went while we looked


def read_figures(path: str, version: int) -> Figures | None:
    """Give what a cgroup's memory does; None when the cgroup is gone. Raises OSError for anything else."""
    try:
        return _version_2(path) if version == 2 else _version_1(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == 19:  # ENODEV: it went between two files
            return None
        raise


def _version_2(path: str) -> Figures:
    stat = _table(f"{path}/memory.stat")
    limit, high = _text(f"{path}/memory.max").strip(), _text(f"{path}/memory.high").strip()
    most, refused = _pids(path)
    return Figures(
        current=int(_text(f"{path}/memory.current")),
        limit=int(limit) if limit != "max" else None,
        anonymous=stat.get("anon", 0),
        page_cache=stat.get("file", 0) - stat.get("shmem", 0),
        shared=stat.get("shmem", 0),
        oom_kills=_table(f"{path}/memory.events").get("oom_kill", 0),
        processes=_processes(path),
        pressure_percent=_pressure(f"{path}/memory.pressure"),
        high=int(high) if high != "max" else None,
        most_processes=most,
        refused_processes=refused,
    )


def _version_1(path: str) -> Figures:
    stat = _table(f"{path}/memory.stat")
    limit = int(_text(f"{path}/memory.limit_in_bytes"))
    shared = stat.get("total_shmem", stat.get("shmem", 0))
    return Figures(
        current=int(_text(f"{path}/memory.usage_in_bytes")),
        limit=limit if limit < _NO_LIMIT else None,
        anonymous=stat.get("total_rss", stat.get("rss", 0)),
        page_cache=stat.get("total_cache", stat.get("cache", 0)) - shared,
        shared=shared,
        oom_kills=_table(f"{path}/memory.oom_control").get("oom_kill", 0),
        processes=_processes(path),
    )


def _processes(path: str) -> int:
    # In another pid namespace each is written as 0; the number is right all the same.
    return len(_text(f"{path}/cgroup.procs").split())


def _pids(path: str) -> tuple[int | None, int]:
    """Give pids.max and how often it refused a process or thread; 0 times where the controller is off."""
    try:
        most = _text(f"{path}/pids.max").strip()
        return int(most) if most != "max" else None, _table(f"{path}/pids.events").get("max", 0)
    except FileNotFoundError:
        return None, 0


def _pressure(path: str) -> float | None:
    try:
        found = re.search(r"some avg10=([0-9.]+)", _text(path))
    except OSError:
        return None  # psi=0
    return float(found[1]) if found else None


def _table(path: str) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in _text(path).splitlines())}


def _text(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()
