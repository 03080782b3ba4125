"""Where the readers of this room get their bytes from: something that can be read at an offset."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

KeepOn = Callable[[int], bool]  # told how many bytes were just read; says whether to read on


class ByteSource(Protocol):
    """Bytes at offsets, like pread(2); it may grow or shrink between two calls."""

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Give up to `size_bytes` bytes from `offset`; fewer, or none, only where the bytes end. Raises OSError."""
        ...


class InMemory:
    """A ByteSource over bytes that are at hand."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        return self.content[offset : offset + size_bytes]


class ReadAhead:
    """A ByteSource that answers small reads, one close behind the other, from one larger read."""

    _SMALL_BYTES, _AHEAD_BYTES = 8192, 64 * 1024

    def __init__(self, source: ByteSource) -> None:
        self._source = source
        self._window, self._window_at = b"", 0

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        if size_bytes > self._SMALL_BYTES:
            return self._source.read_at(offset, size_bytes)
        start = offset - self._window_at
        if start < 0 or start + size_bytes > len(self._window):
            self._window, self._window_at = self._source.read_at(offset, self._AHEAD_BYTES), offset
            start = 0
        return self._window[start : start + size_bytes]
