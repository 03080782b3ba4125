"""The daemon's own verdict in a small file on a local file system, where the exec probe reads it and cannot hang."""

from __future__ import annotations

import enum
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from dumpagent.errors import BadSettings
from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import AgentKilled, HeartbeatFailed, HeartbeatRecovered
from dumpagent.observe.incident import Incident
from dumpagent.secrets import hide

MAGIC = "dumpagent-heartbeat 1"  # the format's version; dumpagent/check.py reads it


class Health(enum.Enum):
    """What the daemon says of itself."""

    READY = "ready"
    NOT_READY = "not-ready"


def _boot_id() -> str:
    """Give the kernel's name of this boot. Source: random(4), /proc/sys/kernel/random/boot_id."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True)
class Heartbeat:
    """Writes `<directory>/<mode>.heartbeat`; `mode` is mount or upload, `volume` the directory that must be mounted.

    Times are seconds since boot (CLOCK_BOOTTIME, which is /proc/uptime): a wrong or stepped wall clock makes no
    daemon look alive or dead.
    """

    directory: str
    mode: str
    volume: str = ""
    boottime: Callable[[], float] = _boottime
    boot_id: Callable[[], str] = _boot_id

    @property
    def path(self) -> str:
        """Give the file that is written."""
        return f"{self.directory}/{self.mode}.heartbeat"

    def of_one_that_was_killed(self) -> str:
        """Say whose word was left here by a daemon that did not end in good order; empty if there was none.

        The directory outlives the container, not the pod and not the boot; in a container that starts again the new
        daemon has the pid of the old one.
        """
        try:
            with open(self.path, encoding="utf-8", errors="surrogateescape") as file:
                said = dict(line.rstrip("\n").split(" ", 1) for line in file if " " in line)
            if said["boot"] != self.boot_id():
                return ""
            if int(said["pid"]) != os.getpid() and os.path.exists(f"/proc/{int(said['pid'])}"):
                return ""  # it is another one, and lives
            return (
                f"process {said['pid']}, {self.boottime() - float(said['beaten']):.0f} s after its last word"
            )
        except (OSError, ValueError, KeyError):
            return ""

    def open(self) -> None:
        """Make the directory and write the first beat (not ready: starting).

        Raises BadSettings when the directory cannot be written: no probe could ever succeed.
        """
        try:
            os.makedirs(self.directory, mode=0o755, exist_ok=True)
            self.beat(Health.NOT_READY, "the daemon is starting", good_for_s=60)
        except OSError as error:
            raise BadSettings(
                f"RUNTIME_DIR is {self.directory!r}, which cannot be written: {error.strerror}",
                hint="mount an emptyDir there, or set RUNTIME_DIR to a local directory that the daemon may write; "
                "not one on the volume itself",
            ) from error

    def beat(self, verdict: Health, reason: str, good_for_s: float) -> None:
        """Say that the loop turns now, that `verdict` holds because of `reason`, and for how long both may be believed.

        Raises OSError (a full or read-only file system); the last beat then stands until it is stale.
        """
        lines = {
            "mode": self.mode,
            "pid": str(os.getpid()),
            "boot": self.boot_id(),
            "beaten": f"{self.boottime():.2f}",
            "good-for": f"{good_for_s:.2f}",
            "verdict": verdict.value,
            "volume": _as_in_mountinfo(self.volume),
            "reason": hide(" ".join(reason.split())),
        }
        text = MAGIC + "".join(f"\n{name} {value}" for name, value in lines.items()) + "\n"
        temporary = f"{self.path}.tmp"
        # No fsync: what a power cut loses here was about a daemon that is gone.
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            os.write(fd, text.encode("utf-8", "surrogateescape"))
        finally:
            os.close(fd)
        os.rename(temporary, self.path)

    def stop(self) -> None:
        """Remove the file: this daemon ended in good order. Never raises OSError."""
        try:
            os.unlink(self.path)
        except OSError:
            pass  # then it goes stale


class Pulse:
    """Leaves word for `dumpagent check` that the main loop turns; where it cannot, that is told and stops nothing.

    Each word is believed for `good_for_s`.
    """

    def __init__(self, heartbeat: Heartbeat, tell: Tell, *, good_for_s: float) -> None:
        self._heartbeat, self._tell, self._good_for_s = heartbeat, tell, good_for_s
        self._last = (Health.NOT_READY, "the daemon is starting", heartbeat.boottime())
        self._incident = Incident(tell, HeartbeatFailed, HeartbeatRecovered)

    def begin(self) -> None:
        """Make the directory and say that the daemon starts, and what became of the one before it."""
        tell_of_one_that_was_killed(self._heartbeat, self._tell)
        try:
            self._heartbeat.open()
        except BadSettings as error:
            # Fatal in a pod, where the kubelet sees to that; outside one, nobody asks.
            self._incident.failed(
                "heartbeat", HeartbeatFailed(error=str(error), path=self._heartbeat.path, hint=error.hint)
            )

    def beat(self, verdict: Health, reason: str) -> None:
        """Say how the daemon is, and why."""
        self._last = (verdict, reason, self._heartbeat.boottime())
        try:
            self._heartbeat.beat(verdict, reason, self._good_for_s)
        except OSError as error:
            self._incident.failed(
                "heartbeat", HeartbeatFailed(error=error.strerror or str(error), path=self._heartbeat.path)
            )
        else:
            self._incident.ended_for("heartbeat", HeartbeatRecovered(path=self._heartbeat.path))

    def why_not_live(self) -> str:
        """Say why the daemon is not alive; empty if it is."""
        age_s = self._heartbeat.boottime() - self._last[2]
        return f"the loop has not turned for {age_s:.0f} s" if age_s > self._good_for_s else ""

    def why_not_ready(self) -> str:
        """Say why the daemon is not ready; empty if it is."""
        verdict, reason, _ = self._last
        return self.why_not_live() or ("" if verdict is Health.READY else reason)

    def stop(self) -> None:
        """Remove the word: the daemon ends in good order."""
        self._heartbeat.stop()


def tell_of_one_that_was_killed(heartbeat: Heartbeat, tell: Tell) -> None:
    """Tell, at the start of a daemon, if the one before it in this pod was killed: it could not say so itself."""
    if who := heartbeat.of_one_that_was_killed():
        tell(
            AgentKilled(
                mode=heartbeat.mode,
                reason=f"{who}, was gone: killed, or ended by an error",
                hint="see the pod's last state (OOMKilled: raise the memory limit; liveness) and `kubectl logs -p`",
            )
        )


def _as_in_mountinfo(path: str) -> str:
    """Give `path` as /proc/self/mountinfo writes it. Source: proc_pid_mountinfo(5): blank, tab, newline, backslash."""
    return "".join(f"\\{ord(c):03o}" if c in "\t\n\\ " else c for c in path)
