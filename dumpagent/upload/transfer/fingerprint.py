"""The CRC32 of a dump's bytes, whole and block by block: which dump it is, and what each part must sum to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from isal import isal_zlib

from dumpagent.upload.transfer.source import (
    DROP_BYTES,
    READ_BYTES,
    Stopped,
    drop_behind,
    file_shrank,
    is_cached,
)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """`crc32` of the whole file, and of each block of `block_bytes` (the last may be shorter)."""

    size_bytes: int
    crc32: int
    block_bytes: int
    block_crc32s: tuple[int, ...]

    def crc32_of(self, start: int, length: int) -> int:
        """Give the CRC32 of a span that begins at a block and ends at one, or at the file's end."""
        if start % self.block_bytes or (length % self.block_bytes and start + length != self.size_bytes):
            raise ValueError(f"{start}+{length} is no span of blocks of {self.block_bytes}")
        combined = 0
        left = length
        for crc32 in self.block_crc32s[start // self.block_bytes :]:
            if left <= 0:
                break
            span = min(self.block_bytes, left)
            combined = isal_zlib.crc32_combine(combined, crc32, span)
            left -= span
        return combined


def take_fingerprint(
    fd: int, size_bytes: int, *, block_bytes: int, stopped: Callable[[], bool] = lambda: False
) -> Fingerprint:
    """Read the whole file once, a little at a time. Raises SourceChanged if it is shorter, Stopped if `stopped()`.

    A dump that was in the page cache stays there, for it is read once more when it is sent; one that was not is
    dropped behind, or it would push out what other programs of the node need.
    """
    keep = size_bytes <= DROP_BYTES or is_cached(fd, size_bytes)
    if not keep:
        drop_behind(fd, 0, size_bytes)  # the samples have filled pages, which would be taken for cached ones
    blocks: list[int] = []
    buffer = memoryview(bytearray(min(READ_BYTES, block_bytes)))
    dropped = 0
    for start in range(0, size_bytes, block_bytes):
        crc32, at, end = 0, start, min(start + block_bytes, size_bytes)
        while at < end:
            if stopped():
                raise Stopped
            view = buffer[: end - at]
            got = os.preadv(fd, [view], at)
            if not got:
                raise file_shrank(at)
            crc32 = isal_zlib.crc32(view[:got], crc32)
            at += got
            if not keep and (at - dropped >= DROP_BYTES or at == size_bytes):
                drop_behind(fd, dropped, at - dropped)
                dropped = at
        blocks.append(crc32)
    combined, left = 0, size_bytes
    for crc32 in blocks:
        combined = isal_zlib.crc32_combine(combined, crc32, min(block_bytes, left))
        left -= block_bytes
    return Fingerprint(size_bytes, combined, block_bytes, tuple(blocks))
