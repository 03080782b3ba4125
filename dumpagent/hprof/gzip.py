"""Reading gzip dumps: the unpacked bytes at an offset, and what the last members say without unpacking the rest.

HotSpot writes a chain of members of at most 1 MiB each, each of them whole: a dump whose JVM was killed is a valid
gzip file, only its end is missing. Source: RFC 1952; JDK heapDumperCompression.cpp.
"""

from __future__ import annotations

import enum
from typing import Any, cast

from isal import isal_zlib

from dumpagent.hprof import records
from dumpagent.hprof.source import ByteSource, KeepOn

_GZIP_WBITS = 31
_BadGzip = cast("type[Exception]", isal_zlib.error)  # its stubs call it an instance
_PACKED_READ_BYTES = 128 * 1024
_PIECE_BYTES = 256 * 1024
# What is fed to a decoder at once: what is left at a member's end is copied, which a million empty members would make dear.
_FIRST_FEED_BYTES, _FEED_BYTES = 2048, 64 * 1024
_TAIL_PACKED_BYTES = 4 << 20
_TAIL_UNPACKED_BYTES = 4 << 20
_TAIL_MEMBERS = 160
# What the look at the tail may cost, about 50 ms: members unpacked in vain, and places that look like a segment.
_TAIL_COST_BYTES, _TAIL_GUESSES = 24 << 20, 20_000
_END_BYTES = records.RECORD_BYTES


class NotYet(Exception):
    """The allowance for this look is used up; nothing is lost, the next look goes on from here."""


class Unpacked:
    """A ByteSource over what a gzip file unpacks to, made for reading forwards; going back starts again.

    Holds under 1 MiB, whatever the file does. `problem` is a clause for a person when the packed bytes are damaged;
    `whole` says whether what has been read up to now ends at the end of a member.
    """

    def __init__(self, packed: ByteSource) -> None:
        self.packed = packed
        self.allowance_bytes: int | None = None
        self.keep_on: KeepOn = lambda _bytes: True
        self._restart()

    def _restart(self) -> None:
        self.problem: str | None = None
        self.whole = True
        self.packed_offset = 0
        self._window = b""
        self._window_at = 0
        self._decoder: Any = None
        self._more_inside = False
        self._input, self._input_at = b"", 0
        self._feed_bytes = _FIRST_FEED_BYTES

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Give up to `size_bytes` unpacked bytes from `offset`. Raises NotYet, OSError."""
        if offset < self._window_at:
            self._restart()
        while self._window_at + len(self._window) < offset + size_bytes:
            piece = self._unpack_piece()
            if not piece:
                break
            end = self._window_at + len(self._window)
            if end <= offset:
                self._window, self._window_at = piece, end
            else:
                kept = max(0, offset - self._window_at)
                self._window, self._window_at = self._window[kept:] + piece, self._window_at + kept
        start = offset - self._window_at
        return self._window[start : start + size_bytes] if start >= 0 else b""

    def _unpack_piece(self) -> bytes:
        """Give the next unpacked bytes; none at the end of the packed ones, or behind damage."""
        while self.problem is None:
            if self.allowance_bytes is not None and self.allowance_bytes <= 0:
                raise NotYet
            if self._input_at >= len(self._input) and not self._more_inside:
                self._input, self._input_at = self.packed.read_at(self.packed_offset, _PACKED_READ_BYTES), 0
                self.packed_offset += len(self._input)
                self._spend(len(self._input) + 512)
                if not self._input:
                    return b""
            if self._decoder is None:
                self._decoder, self._feed_bytes = isal_zlib.decompressobj(_GZIP_WBITS), _FIRST_FEED_BYTES
                self.whole = False
            fed = self._input[self._input_at : self._input_at + self._feed_bytes]
            try:
                piece: bytes = self._decoder.decompress(fed, _PIECE_BYTES)
            except _BadGzip as error:
                self.problem = f"its gzip member before packed byte {self.packed_offset} is damaged ({error})"
                return b""
            self._feed_bytes = _FEED_BYTES
            if self._decoder.eof:
                self._input_at += len(fed) - len(self._decoder.unused_data)
                self._decoder, self.whole, self._more_inside = None, True, False
            else:
                self._input_at += len(fed) - len(self._decoder.unconsumed_tail)
                self._more_inside = len(piece) == _PIECE_BYTES
            self._spend(len(piece) + 256)
            if piece:
                return piece
        return b""

    def _spend(self, size_bytes: int) -> None:
        if self.allowance_bytes is not None:
            self.allowance_bytes -= size_bytes
        if not self.keep_on(size_bytes):
            self.allowance_bytes = 0


class Tail(enum.Enum):
    """What the last members of a gzip dump say about its end."""

    ENDED = "ended"  # whole members up to the last byte, and a heap segment that leads exactly to END
    OPEN = "open"  # whole members up to the last byte, but no END
    UNSURE = "unsure"  # only unpacking everything can tell


def read_tail(packed: ByteSource, size_bytes: int) -> Tail:
    """Say how a gzip dump of `size_bytes` ends, by unpacking its last members. Raises OSError.

    The END record alone is nine bytes that are mostly zero and could stand in a heap by chance, so the segment
    before it must lead there too.
    """
    window_at = max(0, size_bytes - _TAIL_PACKED_BYTES)
    window = packed.read_at(window_at, size_bytes - window_at)
    if len(window) != size_bytes - window_at:
        return Tail.UNSURE
    end, search_end, unpacked, searched = len(window), len(window), b"", 0
    cost_bytes, guesses = 0, _TAIL_GUESSES
    for _ in range(_TAIL_MEMBERS):
        start = window.rfind(records.GZIP_MAGIC, 0, search_end)
        if start < 0 or cost_bytes > _TAIL_COST_BYTES or guesses <= 0:
            break
        # The next one back may share no byte with this one, except the magic's own.
        search_end = start + len(records.GZIP_MAGIC) - 1
        member, cost = _whole_member(window[start:end])
        cost_bytes += cost + (end - start)
        if member is None:
            continue
        end, unpacked = start, member + unpacked
        if len(unpacked) < _END_BYTES:
            continue
        if unpacked[-_END_BYTES] != records.HEAP_DUMP_END or unpacked[-4:] != bytes(4):
            return Tail.OPEN
        leads, guesses = _leads_to_end(unpacked, searched, guesses)
        if leads:
            return Tail.ENDED
        searched = len(unpacked)
        if len(unpacked) > _TAIL_UNPACKED_BYTES:
            break
    return Tail.UNSURE


def _whole_member(packed: bytes) -> tuple[bytes | None, int]:
    """Give what `packed` unpacks to, if it is exactly one whole member of a sane size; and how much was unpacked."""
    decoder = isal_zlib.decompressobj(_GZIP_WBITS)
    try:
        unpacked: bytes = decoder.decompress(packed, _TAIL_UNPACKED_BYTES)
    except _BadGzip:
        return None, 0
    return (unpacked if decoder.eof and not decoder.unused_data else None), len(unpacked)


def _leads_to_end(unpacked: bytes, searched: int, guesses: int) -> tuple[bool, int]:
    """Say whether some heap segment in `unpacked` has just the length that leads to the END record behind it.

    The last `searched` bytes were looked through before. Gives too how many of `guesses` are left.
    """
    end = len(unpacked) - _END_BYTES
    segment = bytes([records.HEAP_DUMP_SEGMENT]) + bytes(4)  # HotSpot writes the time as 0
    at = unpacked.rfind(segment, 0, min(end, len(unpacked) - searched + records.RECORD_BYTES))
    while at >= 0 and guesses > 0:
        if at + records.RECORD_BYTES + int.from_bytes(unpacked[at + 5 : at + 9], "big") == end:
            return True, guesses
        guesses -= 1
        at = unpacked.rfind(segment, 0, at)
    return False, guesses
