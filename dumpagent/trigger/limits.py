"""One request at a time on a node, and a least time between two of one pod."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dumpagent.errors import Refused
from dumpagent.kernel.files import replace_file
from dumpagent.kernel.flock import FileLock


def _since_boot() -> float:
    """Give seconds since the boot: no clock that somebody sets. RUNTIME_DIR does not outlive a boot either."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextmanager
def one_at_a_time(runtime_dir: str) -> Iterator[None]:
    """Hold the node's only place for a request. Raises Refused while another has it, OSError without RUNTIME_DIR."""
    os.makedirs(runtime_dir, exist_ok=True)
    lock = FileLock(f"{runtime_dir}/trigger.lock")
    try:
        lock.set(True)
    except BlockingIOError as error:
        raise Refused(
            "another request is under way on this node",
            hint="one heap dump at a time: try again when it is done",
        ) from error
    try:
        yield
    finally:
        lock.set(False)


class LeastInterval:
    """Remembers when each pod was last asked, in `runtime_dir`."""

    def __init__(self, runtime_dir: str, least_s: float, now: Callable[[], float] = _since_boot) -> None:
        self._folder, self._least_s, self._now = runtime_dir, least_s, now

    def _path(self, pod_uid: str) -> str:
        return f"{self._folder}/triggered-{pod_uid}"

    def require(self, pod_uid: str) -> None:
        """Raise Refused if the pod was asked less than the least interval ago."""
        try:
            with open(self._path(pod_uid), encoding="ascii") as file:
                last = float(file.read(64))
        except FileNotFoundError:
            return
        except ValueError:
            return  # cut by a full disk: nothing to go by
        left = last + self._least_s - self._now()
        if 0 < left <= self._least_s:
            raise Refused(
                f"this pod was asked {self._least_s - left:.0f} s ago",
                hint=f"wait {left:.0f} s more, or set TRIGGER_INTERVAL: each dump stops the application",
            )

    def note(self, pod_uid: str) -> None:
        """Remember that the pod is asked now. Raises OSError: without it there is no limit, so nothing is asked."""
        replace_file(self._path(pod_uid), f"{self._now():.0f}\n".encode())
