"""What this container knows by itself: mounts, versions, limits, the daemon's metrics and verdict."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys

from dumpagent import __version__
from dumpagent.gather.collector import Desk
from dumpagent.kernel.beneath import open_file
from dumpagent.kernel.mountinfo import open_mountinfo, read_mountinfo

_LIBRARIES = ("boto3", "botocore", "click", "inotify-simple", "isal", "numba", "numpy", "prometheus-client", "rich",
              "structlog", "tenacity", "urllib3")  # fmt: skip
_LIMITS = ("memory.max", "memory.current", "memory.events", "cpu.max", "cpu.stat", "pids.max", "pids.current")
_PROCESS = ("status", "limits", "cgroup", "attr/current")
_MOST_BYTES = 4 << 20
_HTTP_S = 5.0


def mounts(desk: Desk) -> None:
    """Add the mount table of this container. It asks no file system."""
    fd = open_mountinfo()
    try:
        desk.add("mountinfo.txt", read_mountinfo(fd).decode(errors="replace"))
    finally:
        os.close(fd)


def versions(desk: Desk) -> None:
    """Add the versions of dumpagent, Python, kernel and libraries."""
    libraries = {}
    for name in _LIBRARIES:
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    system = platform.uname()
    found = {
        "dumpagent": __version__, "python": sys.version, "kernel": f"{system.system} {system.release} {system.version}",
        "machine": system.machine, "libraries": libraries,
    }  # fmt: skip
    desk.add("versions.json", json.dumps(found, indent=1) + "\n")


def limits(desk: Desk) -> None:
    """Add rights and limits of this container: its cgroup's files, and what the kernel says of this process."""
    for path in (
        *(f"/sys/fs/cgroup/{name}" for name in _LIMITS),
        *(f"/proc/self/{name}" for name in _PROCESS),
    ):
        try:
            with open(path, "rb") as file:
                text = file.read(1 << 16).decode(errors="replace").strip("\0\n")
        except OSError as error:
            text = f"({error.strerror})"
        desk.add("limits.txt", f"== {path}\n{text}\n")


def metrics(desk: Desk, address: str, port: int) -> None:
    """Add what the daemon of this container answers for /metrics, /healthz and /readyz."""
    import http.client

    if not port:
        desk.miss("METRICS_PORT is 0: the daemon answers no HTTP request")
        return
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104 - asked, not listened on
    for path in ("metrics", "healthz", "readyz"):
        connection = http.client.HTTPConnection(host, port, timeout=_HTTP_S)
        try:
            connection.request("GET", f"/{path}")
            answer = connection.getresponse()
            text = answer.read(_MOST_BYTES).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            hint = "run `dumpagent gather` in the daemon's container" if path == "metrics" else ""
            desk.miss(f"http://{host}:{port}/{path}: {type(error).__name__}: {error}", hint)
            return
        finally:
            connection.close()
        desk.add(f"{path}.txt", text if path == "metrics" else f"{answer.status} {answer.reason}\n{text}\n")


def verdicts(desk: Desk, directory: str) -> None:
    """Add the small files that the daemon writes into RUNTIME_DIR for `dumpagent check`."""
    for name in sorted(os.listdir(directory))[:50]:
        try:
            with open(open_file(directory, name), "rb") as file:
                text = file.read(1 << 16).decode(errors="replace").strip()
        except OSError as error:
            text = f"({error.strerror})"
        desk.add("runtime.txt", f"== {name}\n{text}\n")
