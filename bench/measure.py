"""What one run of a program costs: CPU of it and all its children, peak RSS, wall clock."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.limits import Cgroup, Spent
from tests.harness.children import die_with


@dataclass(frozen=True)
class Cost:
    """`rss_bytes` is the largest of the processes; `cgroup` is there for runs inside limits."""

    cpu_s: float
    user_s: float
    wall_s: float
    rss_bytes: int
    exit_code: int
    said: str
    cgroup: Spent | None = None


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cgroup: Cgroup | None = None,
    said_in: Path,
    timeout_s: float = 900,
) -> Cost:
    """Run a program to its end and give what it cost. Raises TimeoutExpired after killing it.

    wait4(2) counts the program and all children that it waited for. This process must stay small: a child's
    peak RSS begins with that of the process that forked it.
    """
    parent = os.getpid()
    with open(said_in, "w+b") as said:
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            try:
                _become(argv, env, cgroup, said.fileno(), parent)
            finally:
                os._exit(127)
        status, usage = _wait(child, argv, began + timeout_s, timeout_s)
        wall_s = time.monotonic() - began
        said.seek(0)
        text = said.read().decode(errors="replace")
    return Cost(
        cpu_s=usage.ru_utime + usage.ru_stime,
        user_s=usage.ru_utime,
        wall_s=wall_s,
        rss_bytes=usage.ru_maxrss * 1024,
        exit_code=os.waitstatus_to_exitcode(status),
        said=text,
        cgroup=cgroup.spent() if cgroup else None,
    )


def _become(
    argv: Sequence[str], env: Mapping[str, str], cgroup: Cgroup | None, out_fd: int, parent: int
) -> None:
    die_with(parent)
    if cgroup:
        cgroup.join()
    os.setsid()
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(out_fd, 1)
    os.dup2(out_fd, 2)
    os.execve(argv[0], list(argv), dict(env))


def _wait(
    child: int, argv: Sequence[str], deadline: float, timeout_s: float
) -> tuple[int, resource.struct_rusage]:
    try:
        while True:
            pid, status, usage = os.wait4(child, os.WNOHANG)
            if pid:
                return status, usage
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(list(argv), timeout_s)
            time.sleep(0.005)
    except BaseException:  # Ctrl-C as well: it is in a session of its own and does not hear of it
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # not yet in its own session
            os.kill(child, signal.SIGKILL)
        os.wait4(child, 0)
        raise


def drop_cached(path: Path) -> None:
    """Put the file's pages out of the page cache: the next reader meets a cold disk. Other files keep theirs."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)  # dirty pages stay otherwise
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def warm(path: Path) -> None:
    """Bring the file into the page cache, charged to nobody who is measured."""
    buffer = bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
