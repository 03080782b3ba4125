"""Finds a pod's JVMs among the node's processes, and holds one so that its number cannot come to mean another.

Source: proc_pid_status(5), proc_pid_stat(5), proc_pid_cgroup(5), proc_pid_maps(5), pidfd_open(2).
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dumpagent.errors import Refused

_MOST_BYTES = 8 << 20  # of one file of /proc: a process may map 65530 files
_POD = re.compile(r"pod([0-9a-f]{4,}(?:[-_][0-9a-f]+)*)(?:\.slice)?(?:/([^/]*))?")
_HOTSPOT, _OPENJ9 = "/libjvm.so", "/libj9vm"


@dataclass(frozen=True, slots=True)
class Jvm:
    """One process of HotSpot's, as the kernel tells of it; `started` (clock ticks since boot) tells it from a later one.

    `inner_pid` is its number in its own pid namespace, `container` the runtime's id or empty.
    """

    pid: int
    started: int
    inner_pid: int
    uid: int
    gid: int
    container: str
    resident_bytes: int
    command: str


@dataclass(frozen=True, slots=True)
class HeldProcess:
    """A process that is held by descriptors: `pidfd` signals it and nobody else, `folder` is its own /proc directory."""

    jvm: Jvm
    pidfd: int
    folder: int

    def read(self, name: str) -> str:
        """Give a file of its /proc directory. Raises Refused when the process is gone."""
        return _read(self.folder, name)

    def handles_quit(self) -> bool:
        """Say whether it catches SIGQUIT now; a process that does not would be ended by it."""
        caught = int(_status(self.read("status")).get("SigCgt", "0"), 16)
        return bool(caught & 1 << (signal.SIGQUIT - 1))


def pod_of(cgroups: str) -> tuple[str, str]:
    """Give the pod's uid and the container's id out of /proc/PID/cgroup; empty for a process of no pod."""
    for line in cgroups.splitlines():
        if found := _POD.search(line.split(":", 2)[-1]):
            return found[1].replace("_", "-"), _container(found[2] or "")
    return "", ""


def _container(name: str) -> str:
    return re.sub(r"^(?:crio|cri-containerd|docker|libpod)-", "", name.removesuffix(".scope"))


def jvms(pod_uid: str, proc: str = "/proc") -> Iterator[Jvm]:
    """Give the JVMs of the pod. May wait for a process that hangs in the kernel: ask in a child. Raises Refused."""
    wanted = pod_uid.replace("_", "-")
    for name in sorted(filter(str.isdecimal, os.listdir(proc)), key=int):
        try:
            folder = os.open(f"{proc}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # gone meanwhile
        try:
            if pod_of(_read(folder, "cgroup"))[0] == wanted:
                yield examine(folder, int(name))
        except (ProcessGone, NoHotspot):
            continue
        finally:
            os.close(folder)


class ProcessGone(Refused):
    """The process has ended."""


class NoHotspot(Refused):
    """The process is no HotSpot JVM, or none that can be asked."""


def examine(folder: int, pid: int) -> Jvm:
    """Give what the kernel tells of the process whose /proc directory is open on `folder`.

    Raises ProcessGone, NoHotspot, or Refused where this container may not look at it.
    """
    status = _status(_read(folder, "status"))
    mapped = _read(folder, "maps")
    if _OPENJ9 in mapped or _HOTSPOT not in mapped:
        what = "an OpenJ9 JVM" if _OPENJ9 in mapped else "no JVM: it has not loaded libjvm.so"
        raise NoHotspot(f"process {pid} is {what}", hint="only HotSpot JVMs (OpenJDK) can be asked")
    uids, gids = set(status["Uid"].split()), set(status["Gid"].split())
    if len(uids) > 1 or len(gids) > 1:
        raise NoHotspot(f"process {pid} runs under several users at once", hint="it is left alone")
    # Behind the command, which may hold blanks and brackets: state, then 18 fields, then the start.
    started = int(_read(folder, "stat").rpartition(")")[2].split()[19])
    kib = sum(int(status.get(name, "0").split()[0]) for name in ("VmRSS", "VmSwap"))
    return Jvm(
        pid=pid,
        started=started,
        inner_pid=int(status["NSpid"].split()[-1]),
        uid=int(uids.pop()),
        gid=int(gids.pop()),
        container=pod_of(_read(folder, "cgroup"))[1],
        resident_bytes=kib * 1024,
        command=status.get("Name", ""),
    )


@contextmanager
def held(jvm: Jvm, proc: str = "/proc") -> Iterator[HeldProcess]:
    """Hold the process for the time of the `with`. Raises ProcessGone if its number belongs to another by now."""
    try:
        folder = os.open(f"{proc}/{jvm.pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _gone(jvm.pid) from error
    pidfd = -1
    try:
        try:
            pidfd = os.pidfd_open(jvm.pid)
        except OSError as error:
            raise _gone(jvm.pid) from error
        # Read after the descriptor was opened: its process is still there, so both are of the same one.
        if int(_read(folder, "stat").rpartition(")")[2].split()[19]) != jvm.started:
            raise _gone(jvm.pid)
        yield HeldProcess(jvm, pidfd, folder)
    finally:
        os.close(folder)
        if pidfd >= 0:
            os.close(pidfd)


def _gone(pid: int) -> ProcessGone:
    return ProcessGone(
        f"process {pid} has ended", hint="the container was restarted, or its JVM has ended: try again"
    )


def _read(folder: int, name: str) -> str:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
        try:
            pieces, size = [], 0
            while size < _MOST_BYTES and (piece := os.read(fd, 1 << 16)):
                pieces.append(piece)
                size += len(piece)
        finally:
            os.close(fd)
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessGone("the process has ended", hint="try again") from error
    except PermissionError as error:
        raise Refused(
            f"/proc/PID/{name} of another user's process cannot be read: {error.strerror}",
            hint="this needs hostPID and the capability SYS_PTRACE, as manifests/trigger gives them",
        ) from error
    return b"".join(pieces).decode(errors="replace")


def _status(text: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _, value in pairs}
