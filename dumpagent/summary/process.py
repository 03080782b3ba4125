"""A summary that is made in a process of its own, which can be made to stand still and does not outlive the agent."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any

from dumpagent.errors import DumpagentError

_MOST_BYTES = 1 << 20
# One that waits for a volume that hangs cannot be ended; it goes when the volume answers.
_END_S, _LOOK_S = 5.0, 0.02


class NoSummary(DumpagentError):
    """The process ended without a summary."""


class SummaryProcess:
    """The process at work on the dump at descriptor `dump_fd`, which it reads at offsets.

    It dies with the thread that made it. Safe to use from several threads: no signal is sent once it was reaped, so none
    reaches another process that has its number by then.
    Raises OSError when no process can be had.
    """

    def __init__(self, dump_fd: int, *, size_bytes: int, budget_s: float) -> None:
        read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
        try:
            self.pid = os.posix_spawn(
                sys.executable,
                [
                    *(sys.executable, "-m", "dumpagent.summary.child"),
                    *(str(budget_s), str(size_bytes), str(os.getpid())),
                ],
                {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, dump_fd, 0),
                    (os.POSIX_SPAWN_DUP2, write_fd, 1),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsigdef=[signal.SIGTERM, signal.SIGINT],
                setsigmask=[],
            )
        except OSError:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        self._lock, self._reaped = threading.Lock(), False
        self._is_bound = self._is_to_stand = False  # bound: it has said that it dies with its parent
        self._read_fd, self._said = read_fd, b""

    def pause(self) -> None:
        """Make it stand still, once it is sure to die with its parent: one that stood before would outlive it.

        Source: signal(7), SIGSTOP cannot be caught.
        """
        with self._lock:
            self._is_to_stand = True
            if self._is_bound:
                self._kill(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        with self._lock:
            self._is_to_stand = False
            self._kill(signal.SIGCONT)

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds` for its end; say whether it has ended."""
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        piece = os.read(self._read_fd, 1 << 16)
        self._said += piece
        if piece and not self._is_bound:
            with self._lock:
                self._is_bound = True
                if self._is_to_stand:
                    self._kill(signal.SIGSTOP)
        return not piece or len(self._said) > _MOST_BYTES

    def answer(self) -> dict[str, Any]:
        """Give what it said, after its end. Raises NoSummary."""
        status = self._reap()
        try:
            answer = dict(json.loads(self._said))
        except ValueError:
            raise NoSummary(_end_of(status), hint="nothing is lost; the dump is in the store") from None
        if "error" in answer:
            raise NoSummary(str(answer["error"]), hint="nothing is lost; the dump is in the store")
        return answer

    def close(self) -> None:
        """End it, however far it is."""
        if self._read_fd >= 0:
            self._reap()

    def _reap(self) -> int:
        with self._lock:
            self._kill(signal.SIGKILL)  # has no effect on one that has ended
        os.close(self._read_fd)
        self._read_fd = -1
        for _ in range(int(_END_S / _LOOK_S)):
            with self._lock:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self._reaped = pid != 0
            if self._reaped:
                return status
            time.sleep(_LOOK_S)
        raise NoSummary(
            "its process waits for the volume and cannot be ended", hint="see whether the volume answers"
        )

    def _kill(self, number: int) -> None:
        if not self._reaped:
            os.kill(self.pid, number)


def _end_of(status: int) -> str:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        why = " (the kernel does that when memory is short)" if number == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(number).name}{why}"
    return f"its process ended with exit code {os.waitstatus_to_exitcode(status)}"
