"""A forked child that asks a file system what may never be answered, so that the daemon itself cannot hang."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from dumpagent.kernel.children import die_with_parent

Say = Callable[[dict[str, object]], None]


@dataclass(frozen=True)
class Descriptors:
    """The descriptors that a child must not keep, looked up when it is forked: connections come and go."""

    now: Callable[[], Iterable[int]]

    def __iter__(self) -> Iterator[int]:
        return iter(self.now())


CRASHED = "crashed"


@dataclass
class ForkedCall:
    """A child at work. Poll `fd`, then `read`; `started` is monotonic seconds.

    A child in an uninterruptible wait outlives SIGKILL: it is never waited for, only reaped once it is gone.
    """

    pid: int
    fd: int
    started: float
    ended: bool = False
    _rest: bytes = field(default=b"", repr=False)

    @classmethod
    def start(cls, work: Callable[[Say], None], *, now: float, close: Iterable[int] = ()) -> ForkedCall:
        """Fork a child that does `work` and closes our descriptors `close` first (locks, above all).

        Raises OSError when no process can be had.
        """
        reading, writing = os.pipe()  # both are closed on exec
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            pid = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if pid == 0:
            _be_the_child(work, writing, [reading, *close])
        os.close(writing)
        os.set_blocking(reading, False)
        return cls(pid, reading, now)

    def read(self) -> list[dict[str, object]]:
        """Give what the child has said since, without waiting; `ended` is true once it will say no more."""
        said: list[dict[str, object]] = []
        while not self.ended:
            try:
                piece = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                break
            if not piece:
                self.ended = True
                os.close(self.fd)
            *lines, self._rest = (self._rest + piece).split(b"\n")
            said += [json.loads(line) for line in lines]
        return said

    def abandon(self) -> None:
        """Kill the child and hear it no more. Does not wait: a child that cannot die now dies when it can."""
        if not self.ended:
            self.ended = True
            os.close(self.fd)
        try:
            os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # gone and reaped


def _be_the_child(work: Callable[[Say], None], writing: int, close: list[int]) -> None:
    """Do `work` and end the process; never returns."""
    code = 1
    try:
        gc.disable()  # a collection would touch, and so copy, every page that we share with our parent
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        die_with_parent()
        for fd in close:
            os.close(fd)

        def say(line: dict[str, object]) -> None:
            view = memoryview(json.dumps(line).encode() + b"\n")
            while view:
                view = view[os.write(writing, view) :]

        try:
            work(say)
            code = 0
        except Exception as error:  # noqa: BLE001 - the parent tells it; a child has nobody else to tell
            say({CRASHED: f"{type(error).__name__}: {error}"})
    finally:
        os._exit(code)
