"""How many parts of a dump go out at the same moment: as few as keep the CPU busy that the agent may use.

Two at once to a store nearby cost more CPU than one after the other, and are not there sooner while the CPU is what
there is too little of. Where one connection does not fill it (S3 gives each some 90 MB/s), two go out.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable

from dumpagent.store.protocol import Span

_BUSY = 0.6  # share of the CPU that may be used
_KNOWN_AFTER_S = 0.5  # a limited CPU comes in bursts ten times a second
_LONGEST_S = 5.0  # stores give up a connection that is quiet for 20 s
_LOOK_S = 0.1


class CpuThrottle:
    """One thread at a time sends; the others wait, until it turns out that the CPU idles meanwhile.

    `cores`: what this process may use, in CPU seconds per second, at most one thread's.
    """

    def __init__(
        self,
        cores: float,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._cores = min(1.0, cores)
        self._monotonic, self._cpu = monotonic, cpu
        self._changed = threading.Condition()
        self._holder: int | None = None
        self._began_s = self._cpu_s = 0.0
        self.are_over = False

    def take(self) -> None:
        """Return when this thread may send, or has waited so long that it should in any case."""
        me = threading.get_ident()
        with self._changed:
            since = self._monotonic()
            if not self._began_s:
                self._began_s, self._cpu_s = since, self._cpu()
            while not self.are_over and self._holder not in (None, me):
                self._changed.wait(_LOOK_S)
                self.are_over = self.are_over or self._idles() or self._monotonic() - since > _LONGEST_S
            if not self.are_over:
                self._holder = me
            else:
                self._changed.notify_all()

    def give(self) -> None:
        """Let the next thread send, if this one had the turn."""
        with self._changed:
            if self._holder == threading.get_ident():
                self._holder = None
                self._changed.notify()

    def _idles(self) -> bool:
        passed_s = self._monotonic() - self._began_s
        if passed_s < _KNOWN_AFTER_S:
            return False
        return (self._cpu() - self._cpu_s) / (passed_s * self._cores) < _BUSY


class InTurn(io.RawIOBase):
    """A span that takes a turn when its first byte is read and gives it at its last.

    Whoever reads it gives the turn in the end, should the reading have been broken off.
    """

    def __init__(self, span: Span, turns: CpuThrottle) -> None:
        self._span, self._turns = span, turns

    @property
    def failure(self) -> Exception | None:
        return self._span.failure

    def anew(self) -> InTurn:
        return InTurn(self._span.anew(), self._turns)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        if self._span.tell() == 0:
            self._turns.take()
        data = self._span.read(size)
        if self._span.tell() == len(self._span):
            # The last block is yet to be sent; that the next part begins meanwhile does no harm.
            self._turns.give()
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._span.seek(offset, whence)

    def tell(self) -> int:
        return self._span.tell()

    def __len__(self) -> int:
        return len(self._span)
