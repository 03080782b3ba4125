"""The CRC32 of a dump's bytes, whole and block by block: which dump it is, and what each part must sum to."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from isal import isal_zlib

from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.dumps.source import (
    DROP_BYTES,
    READ_BYTES,
    Stopped,
    drop_behind,
    file_shrank,
    is_cached,
)

_MOST_HALF_READ = 8


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


class HalfRead:
    """Remembers what was read of dumps whose upload gave way to another's, so that it goes on and does not begin anew.

    Each part is compared with it when it is sent: what was written over meanwhile is not stored.
    """

    def __init__(self) -> None:
        self._blocks: dict[tuple[Identity, int, int], list[int]] = {}

    def blocks_of(self, dump: DumpFile, block_bytes: int) -> list[int]:
        """Give the list of the CRC32 of its blocks, which the reader adds to."""
        key = (dump.identity, dump.device, block_bytes)
        blocks = self._blocks.pop(key, [])
        while len(self._blocks) >= _MOST_HALF_READ:
            del self._blocks[next(iter(self._blocks))]
        self._blocks[key] = blocks
        return blocks

    def forget(self, dump: DumpFile) -> None:
        """Forget what was read of a dump."""
        for key in [key for key in self._blocks if key[0] == dump.identity]:
            del self._blocks[key]


def take_fingerprint(
    fd: int,
    size_bytes: int,
    *,
    block_bytes: int,
    stopped: Callable[[], bool] = lambda: False,
    blocks: list[int] | None = None,
) -> Fingerprint:
    """Read the whole file once, a little at a time. Raises SourceChanged if it is shorter, Stopped if `stopped()`.

    `blocks` are those of an earlier call that was stopped; after this one they are all there, or those before its end.

    A dump that was in the page cache stays there, for it is read once more when it is sent; one that was not is
    dropped behind, or it would push out what other programs of the node need.
    """
    keep = size_bytes <= DROP_BYTES or is_cached(fd, size_bytes)
    if not keep:
        drop_behind(fd, 0, size_bytes)  # the samples have filled pages, which would be taken for cached ones
    blocks = [] if blocks is None else blocks
    buffer = memoryview(bytearray(min(READ_BYTES, block_bytes)))
    dropped = len(blocks) * block_bytes
    for start in range(dropped, size_bytes, block_bytes):
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
