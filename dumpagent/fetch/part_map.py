"""Which ranges of an object a part file holds: noted behind its bytes, each with the CRC32 of what has arrived.

The notes stand in the part file itself, so they are as safe from others as the bytes are, and go with it. A range counts
only as far as its bytes still have the CRC32 that was noted: after a power cut they may not.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isal import isal_zlib

from dumpagent.kernel.files import write_at

_HEAD = struct.Struct("<16sIQ")  # what it is, the bytes of a range, the bytes of the object
_MAGIC = b"dumpagent part 1"
_NOTE = struct.Struct("<II")  # of each range: bytes that have arrived, their CRC32
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Range:
    """The object's bytes from `start` to `end`, of which the first `done_bytes` are here and have this CRC32."""

    number: int
    start: int
    end: int
    done_bytes: int = 0
    crc32: int = 0

    @property
    def complete(self) -> bool:
        return self.done_bytes == self.end - self.start


class PartMap:
    """The ranges of an object of `size_bytes` in the part file `fd`. Threads note different ranges at once."""

    def __init__(self, fd: int, size_bytes: int, range_bytes: int) -> None:
        self.fd, self.size_bytes, self.range_bytes = fd, size_bytes, range_bytes
        self._ranges = [
            Range(number, start, min(start + range_bytes, size_bytes))
            for number, start in enumerate(range(0, size_bytes, range_bytes))
        ]

    @property
    def done_bytes(self) -> int:
        """Give how many bytes are here."""
        return sum(each.done_bytes for each in self._ranges)

    @property
    def crc32(self) -> int:
        """Give the CRC32 of the whole, once nothing is missing."""
        crc32 = 0
        for each in self._ranges:
            crc32 = isal_zlib.crc32_combine(crc32, each.crc32, each.done_bytes)
        return crc32

    def missing(self) -> list[Range]:
        """Give the ranges that are not here to their end, in order."""
        return [each for each in self._ranges if not each.complete]

    def note(self, fd: int, each: Range, done_bytes: int, crc32: int) -> None:
        """Note how much of the range has arrived; the bytes are written before. Raises OSError."""
        self._ranges[each.number] = Range(each.number, each.start, each.end, done_bytes, crc32)
        write_at(fd, _NOTE.pack(done_bytes, crc32), self._note_at(each.number))

    def _note_at(self, number: int) -> int:
        return self.size_bytes + _HEAD.size + number * _NOTE.size

    def noted_bytes(self) -> int:
        """Give how many bytes are here, as the notes say, or as the file's length does where it has none."""
        return sum(done_bytes for _, done_bytes, _ in self._told())

    def read(self, advance: Callable[[int], None]) -> int:
        """Take over what the part file has; give how many of its ranges are not what was noted. Raises OSError.

        `advance` is told of the bytes that were checked.
        """
        damaged = 0
        for each, done_bytes, noted in self._told():
            crc32 = 0
            for chunk in _bytes_of(self.fd, each.start, done_bytes):
                crc32 = isal_zlib.crc32(chunk, crc32)
                advance(len(chunk))
            if noted not in (None, crc32):
                damaged += 1
                done_bytes, crc32 = 0, 0
            self._ranges[each.number] = Range(each.number, each.start, each.end, done_bytes, crc32)
        return damaged

    def begin(self, advance: Callable[[int], None]) -> int:
        """Write the notes of a part file that has none: what it holds is the object's front. Raises OSError."""
        self.read(advance)
        for each in self._ranges:
            self.note(self.fd, each, each.done_bytes, each.crc32)
        # Last: a file without it is taken for the object's front, and a hole in it would count.
        write_at(self.fd, _HEAD.pack(_MAGIC, self.range_bytes, self.size_bytes), self.size_bytes)
        return 0

    def _told(self) -> list[tuple[Range, int, int | None]]:
        if range_bytes_noted(self.fd, self.size_bytes) is None:
            have_bytes = min(os.fstat(self.fd).st_size, self.size_bytes)
            return [(each, max(0, min(each.end, have_bytes) - each.start), None) for each in self._ranges]
        notes = os.pread(self.fd, len(self._ranges) * _NOTE.size, self._note_at(0))
        notes = notes.ljust(len(self._ranges) * _NOTE.size, b"\0")
        return [
            (each, min(done_bytes, each.end - each.start), crc32)
            for each, (done_bytes, crc32) in zip(self._ranges, _NOTE.iter_unpack(notes), strict=True)
        ]

    def finish(self) -> None:
        """Take the notes off the part file, which is the object then. Raises OSError."""
        os.ftruncate(self.fd, self.size_bytes)


def range_bytes_noted(fd: int, size_bytes: int) -> int | None:
    """Give the bytes of a range in a part file with notes on an object of `size_bytes`; None if it has no notes."""
    head = os.pread(fd, _HEAD.size, size_bytes)
    if len(head) < _HEAD.size:
        return None
    magic, range_bytes, of_bytes = _HEAD.unpack(head)
    ours = magic == _MAGIC and of_bytes == size_bytes and range_bytes >= _READ_BYTES
    return range_bytes if ours else None


def _bytes_of(fd: int, start: int, size_bytes: int) -> Iterator[bytes]:
    at, end = start, start + size_bytes
    while at < end and (chunk := os.pread(fd, min(_READ_BYTES, end - at), at)):
        yield chunk
        at += len(chunk)
