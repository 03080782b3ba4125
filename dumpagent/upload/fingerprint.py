"""The CRC32 of a dump's bytes, whole and block by block: which dump it is, and what each part must sum to."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass

from isal import isal_zlib

from dumpagent.errors import DumpagentError
from dumpagent.model import Identity
from dumpagent.settings import MIB

_READ_BYTES = 1 * MIB


class DumpChanged(DumpagentError):
    """The file is no longer the one that was judged: it was written to, cut or replaced meanwhile."""


class Stopped(Exception):
    """The agent is ending; what was under way goes on at its next start."""


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


def open_dump(path: str, identity: Identity) -> int:
    """Give a descriptor of the dump, which the caller closes. Raises DumpChanged if another file stands there.

    O_NONBLOCK: should a FIFO have taken the name meanwhile, opening it must not wait for a writer.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        confirm_unchanged(fd, identity)
    except BaseException:
        os.close(fd)
        raise
    return fd


def confirm_unchanged(fd: int, identity: Identity) -> None:
    """Return if the open file is still the one that was judged. Raises DumpChanged."""
    status = os.fstat(fd)
    now = Identity(status.st_ino, status.st_size, status.st_mtime_ns)
    if now != identity:
        raise DumpChanged(
            f"the file changed while it was read: {identity.size_bytes} bytes before, {now.size_bytes} bytes now",
            hint="it is judged again, and uploaded when nobody writes it any more",
        )


def read_span(fd: int, start: int, length: int) -> bytes:
    """Give exactly these bytes. Raises DumpChanged if the file ends before."""
    data = os.pread(fd, length, start)
    while len(data) < length:
        more = os.pread(fd, length - len(data), start + len(data))
        if not more:
            raise DumpChanged(f"the file was cut while it was read: {start + len(data)} bytes are left of it")
        data += more
    return data


def checked(data: bytes, crc32: int) -> bytes:
    """Give `data` if its CRC32 is `crc32`. Raises DumpChanged."""
    if isal_zlib.crc32(data) != crc32:
        raise _other_bytes()
    return data


def _other_bytes() -> DumpChanged:
    return DumpChanged(
        "the file's bytes changed while it was read, its size and time did not",
        hint="if this comes again, the volume or the memory of the node is failing: nothing was stored",
    )


class FileSpan(io.RawIOBase):
    """A span of an open file, read when it is sent. Raises DumpChanged at its end if the CRC32 is another.

    The descriptor stays the caller's. One reader at a time.
    """

    def __init__(self, fd: int, start: int, length: int, crc32: int) -> None:
        self._fd, self._start, self._length, self._expected = fd, start, length, crc32
        self._at = 0
        self._crc32: int | None = 0  # of what was read from the start on without a jump

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence] + offset
        self._crc32 = 0 if self._at == 0 else None
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        left = self._length - self._at
        data = read_span(self._fd, self._start + self._at, left if size < 0 else min(size, left))
        self._at += len(data)
        if data and self._crc32 is not None:
            self._crc32 = isal_zlib.crc32(data, self._crc32)
            if self._at == self._length and self._crc32 != self._expected:
                raise _other_bytes()
        return data


def take_fingerprint(
    fd: int, size_bytes: int, *, block_bytes: int, stopped: Callable[[], bool] = lambda: False
) -> Fingerprint:
    """Read the whole file once, 1 MiB at a time. Raises DumpChanged if it is shorter, Stopped if `stopped()`."""
    blocks: list[int] = []
    buffer = bytearray(min(_READ_BYTES, block_bytes))
    for start in range(0, size_bytes, block_bytes):
        crc32, at, end = 0, start, min(start + block_bytes, size_bytes)
        while at < end:
            if stopped():
                raise Stopped
            view = memoryview(buffer)[: min(len(buffer), end - at)]
            got = os.preadv(fd, [view], at)
            if not got:
                raise DumpChanged(f"the file was cut while it was read: {at} bytes are left of it")
            crc32 = isal_zlib.crc32(view[:got], crc32)
            at += got
        blocks.append(crc32)
    combined, left = 0, size_bytes
    for crc32 in blocks:
        combined = isal_zlib.crc32_combine(combined, crc32, min(block_bytes, left))
        left -= block_bytes
    return Fingerprint(size_bytes, combined, block_bytes, tuple(blocks))
