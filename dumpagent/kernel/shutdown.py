"""SIGTERM and SIGINT as events: one that asks for what is under way to be finished, one that ends every wait at once."""

from __future__ import annotations

import os
import select
import signal
import threading
from types import FrameType, TracebackType


class Shutdown:
    """While entered: the first SIGTERM or SIGINT sets `stop` and ends `wait`; a second one ends the process.

    With `drains` the first SIGTERM sets `draining` alone, and whoever drains sets `stop` when that is done.
    Only the main thread may enter and wait.
    """

    def __init__(self) -> None:
        self.stop, self.draining = threading.Event(), threading.Event()
        self.drains = False
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: dict[int, object] = {}

    def __enter__(self) -> Shutdown:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)  # type: ignore[arg-type]  # what signal() gave, it takes

    def _came(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGTERM and self.drains and not self.draining.is_set():
            self.draining.set()
            self.wake()
            return
        if self.stop.is_set():
            os._exit(128 + number)
        self.stop.set()
        self.wake()

    def wake(self) -> None:
        """End the wait that is under way, or the next one. Any thread may call it."""
        try:
            os.write(self._write_fd, b"!")
        except BlockingIOError:
            pass  # wake-ups enough are waiting already

    def wait(self, seconds: float, *, also: list[int] | None = None) -> list[int]:
        """Wait up to `seconds` for an end, a `wake`, or one of the descriptors `also`; give those that are readable."""
        poll = select.poll()
        for fd in [self._read_fd, *(also or [])]:
            poll.register(fd, select.POLLIN)
        if self.stop.is_set():
            return []
        ready = [fd for fd, _ in poll.poll(max(0.0, seconds) * 1000)]
        if self._read_fd in ready:
            os.read(self._read_fd, 4096)
            ready.remove(self._read_fd)
        return ready
