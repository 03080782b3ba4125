"""Where the readers of this room get their bytes from: something that can be read at an offset."""

from __future__ import annotations

from typing import Protocol


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
