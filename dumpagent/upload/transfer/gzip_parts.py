"""Cuts a dump into the parts of a compressed object, all of one length; each is made while earlier ones are sent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from isal import isal_zlib

from dumpagent.dumps.fingerprint import Fingerprint
from dumpagent.dumps.receipt import PackedPart
from dumpagent.dumps.source import Stopped, drop_behind, file_shrank, other_bytes, read_span
from dumpagent.hprof import chunked
from dumpagent.store.protocol import Body

_READ_BYTES = 1 << 20
_DROP_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """What goes into one part: `body` is the dump's bytes from `start` to `end`, compressed or as they are.

    Of a compressed one, the gzip member of the block at `end` may have begun: its first `carried_bytes`, made at
    `level`, are in this part.
    """

    number: int
    body: Body
    start: int
    end: int
    carried_bytes: int = 0
    carried_crc32: int = 0
    level: int = 0

    def without_body(self) -> Piece:
        """Give the same without its bytes."""
        return replace(self, body=Body(b"", 0))


class CompressionLevel:
    """How much CPU to spend on a piece: more while the line is slower than the packing, for it would idle anyway.

    Between two pieces the uploader waits until the line takes one.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        # Of the last pieces: each counts half of what the one after it does.
        self._made_s = self._waited_s = 0.0
        self.level = chunked.FAST

    def hand_over(self, piece: Piece) -> Piece:
        """Take note that `piece` is made, and give it. It is not kept: its memory is wanted."""
        now = self._clock()
        self._made_s, self._since = self._made_s / 2 + now - self._since, now
        return piece

    def go_on(self) -> None:
        """Take note that the uploader wants the next piece."""
        now = self._clock()
        self._waited_s, self._since = self._waited_s / 2 + now - self._since, now
        # The dense level takes 1.7 times as long; that much must have been spare, and some of it must stay.
        enough_s = self._made_s if self.level == chunked.FAST else self._made_s / 8
        self.level = chunked.DENSE if self._waited_s > enough_s else chunked.FAST


def packed_pieces(
    fd: int,
    fingerprint: Fingerprint,
    part_bytes: int,
    *,
    number: int = 1,
    after: PackedPart | None = None,
    block_bytes: int = chunked.BLOCK_BYTES,
    stopped: Callable[[], bool] = lambda: False,
    level: CompressionLevel | None = None,
) -> Iterator[Piece]:
    """Give the parts from `number` on, all but the last of `part_bytes`; `after` is the part before that.

    Raises SourceChanged if the bytes are not those of the fingerprint, at the latest when there are no more; Stopped;
    CannotGoOn if the part before ends in a member that does not come out as it did then.
    """
    start = after.end if after else 0
    if fingerprint.block_bytes % block_bytes or (start % block_bytes and start != fingerprint.size_bytes):
        raise ValueError(f"blocks of {block_bytes} do not tile {fingerprint.block_bytes} from {start}")
    chosen = level or CompressionLevel()
    proof = _BytesProof(fd, fingerprint, start)
    packed = bytearray()
    carried_bytes = after.carried_bytes if after else 0
    at = start
    for block in _blocks(fd, start, fingerprint.size_bytes, block_bytes):
        if stopped():
            raise Stopped
        made_at = after.level if after and carried_bytes else chosen.level
        member = chunked.pack(block, first=at == 0, block_bytes=block_bytes, level=made_at)
        proof.add(member.crc32, len(block))
        member_start, before_bytes = at, len(packed)
        at += len(block)
        if carried_bytes and after:
            if isal_zlib.crc32(member.packed[:carried_bytes]) != after.carried_crc32:
                raise CannotGoOn
            packed += member.packed[carried_bytes:]
            before_bytes, carried_bytes = -carried_bytes, 0
        else:
            packed += member.packed
        while len(packed) >= part_bytes:
            data = bytes(packed[:part_bytes])
            del packed[:part_bytes]
            in_member = part_bytes - before_bytes
            before_bytes -= part_bytes
            ended = not packed
            yield chosen.hand_over(
                Piece(
                    number,
                    Body(data, isal_zlib.crc32(data)),
                    start,
                    at if ended else member_start,
                    0 if ended else in_member,
                    0 if ended else isal_zlib.crc32(member.packed[:in_member]),
                    made_at,
                )
            )
            chosen.go_on()
            start, number = at if ended else member_start, number + 1
    if packed:
        yield Piece(number, Body(bytes(packed), isal_zlib.crc32(packed)), start, at)


class CannotGoOn(Exception):
    """Compressing gives other bytes than it did when the upload began: another version of the library."""


class _BytesProof:
    """Proves that the blocks that are added, one after the other from `start` on, are those of the fingerprint."""

    def __init__(self, fd: int, fingerprint: Fingerprint, start: int) -> None:
        self._fingerprint = fingerprint
        self._at = start
        before = start - start % fingerprint.block_bytes
        self._crc32 = isal_zlib.crc32(read_span(fd, before, start - before))

    def add(self, crc32: int, length: int) -> None:
        """Raises SourceChanged at the end of a block of the fingerprint that has another CRC32."""
        whole = self._fingerprint
        self._crc32 = isal_zlib.crc32_combine(self._crc32, crc32, length)
        self._at += length
        if self._at % whole.block_bytes == 0 or self._at == whole.size_bytes:
            if self._crc32 != whole.block_crc32s[(self._at - 1) // whole.block_bytes]:
                raise other_bytes()
            self._crc32 = 0


def _blocks(fd: int, start: int, size_bytes: int, block_bytes: int) -> Iterator[memoryview]:
    """Give the dump's bytes from `start` on in blocks; each is good until the next one is asked for."""
    buffer = memoryview(bytearray(max(block_bytes, _READ_BYTES // block_bytes * block_bytes)))
    at = dropped = start
    while at < size_bytes:
        held = _fill(fd, buffer, at, size_bytes)
        for offset in range(0, held, block_bytes):
            yield buffer[offset : min(offset + block_bytes, held)]
        at += held
        if at - dropped >= _DROP_BYTES or at == size_bytes:
            drop_behind(fd, dropped, at - dropped)
            dropped = at


def _fill(fd: int, buffer: memoryview, at: int, size_bytes: int) -> int:
    wanted = min(len(buffer), size_bytes - at)
    held = 0
    while held < wanted:
        got = os.preadv(fd, [buffer[held:wanted]], at + held)
        if not got:
            raise file_shrank(at + held)
        held += got
    return held
