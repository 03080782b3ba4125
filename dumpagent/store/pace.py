"""Sends bodies no faster than BANDWIDTH_LIMIT allows, all threads of the process together.

A body goes out in small pieces with short waits between them: stores and proxies give up a connection that is quiet for
10 to 20 s, and none that is slow.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable

from dumpagent.bandwidth import BandwidthLimit
from dumpagent.part_sizes import SENT_BYTES
from dumpagent.store.protocol import Span

_PIECE_S = 0.125  # of the rate: with ten threads each sends something every 1.25 s
_LEAST_PIECE_BYTES = 1 << 10
_CATCH_UP_S = 0.25  # what a thread that woke late may make up for
_PART_S = 30.0  # a part that takes longer is too much to lose by a kill


class Pace:
    """Tells threads when they may send. `wait` costs a microsecond where no limit holds just now.

    `wall` gives seconds since the epoch, whose hours are those of the zone in TZ, UTC without it.
    """

    def __init__(
        self,
        limit: BandwidthLimit,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._limit, self._monotonic, self._wall, self._sleep = limit, monotonic, wall, sleep
        self._broken_down = time.localtime if os.environ.get("TZ") else time.gmtime
        self._lock = threading.Lock()
        self._free_at_s = float("-inf")

    @property
    def has_limit(self) -> bool:
        """Say whether there is a limit, at any time of the day."""
        return bool(self._limit.rules)

    @property
    def part_bytes(self) -> int | None:
        """The size of a part that is sent in half a minute at the lowest rate of the day; None without any limit."""
        least = self._limit.least_bytes_s
        return None if least is None else int(least * _PART_S)

    def piece_bytes(self) -> int | None:
        """Give how much to send at once now; None for no limit."""
        rate = self._rate()
        return None if rate is None else max(_LEAST_PIECE_BYTES, int(rate * _PIECE_S))

    def wait(self, size_bytes: int) -> None:
        """Return when so many bytes may be sent: those that asked before have been sent at the rate."""
        rate = self._rate()
        if rate is None:
            return
        with self._lock:
            now = self._monotonic()
            mine_s = max(self._free_at_s, now - _CATCH_UP_S)
            self._free_at_s = mine_s + size_bytes / rate
        if mine_s > now:
            self._sleep(mine_s - now)

    def paced(self, data: bytes | Span) -> bytes | Span:
        """Give the same bytes, which keep the pace when they are read."""
        if not data or not self._limit.rules:
            return data
        return PacedSpan(_BytesSpan(data) if isinstance(data, bytes) else data, self)

    def _rate(self) -> float | None:
        rules = self._limit.rules
        if not rules:
            return None
        at = self._broken_down(self._wall())
        return self._limit.bytes_s_at(at.tm_hour * 60 + at.tm_min)


class PacedSpan(io.RawIOBase):
    """A span whose bytes are given out a piece at a time."""

    def __init__(self, span: Span, pace: Pace) -> None:
        self._span, self._pace = span, pace
        self._held = memoryview(b"")  # read, and not given out yet

    @property
    def failure(self) -> Exception | None:
        return self._span.failure

    def anew(self) -> PacedSpan:
        return PacedSpan(self._span.anew(), self._pace)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Give the next bytes as HTTP libraries ask for them, after a wait; all of them at once, without one."""
        if size < 0:
            held, self._held = self._held, memoryview(b"")
            return bytes(held) + self._span.read(size)
        if not self._held:
            self._held = memoryview(self._span.read(size))
        most = self._pace.piece_bytes() or len(self._held)
        piece, self._held = self._held[:most], self._held[most:]
        self._pace.wait(len(piece))
        return piece  # type: ignore[return-value]  # a view: whoever sends it takes any buffer

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if whence == os.SEEK_CUR:
            offset -= len(self._held)
        self._held = memoryview(b"")
        return self._span.seek(offset, whence)

    def tell(self) -> int:
        return self._span.tell() - len(self._held)

    def __len__(self) -> int:
        return len(self._span)


class _BytesSpan(io.BytesIO):
    """Bytes in memory as a span."""

    failure: Exception | None = None

    def anew(self) -> _BytesSpan:
        return _BytesSpan(self.getvalue())

    def __len__(self) -> int:
        return self.getbuffer().nbytes

    def read(self, size: int | None = -1, /) -> bytes:
        """Give the next bytes: more than `size`, as `FileSpan` does."""
        return super().read(size if size is None or size < 0 else max(size, SENT_BYTES))
