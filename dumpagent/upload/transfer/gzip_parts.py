"""Cuts a dump into the parts of a compressed object: runs of whole gzip members, made while earlier ones are sent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isal import isal_zlib

from dumpagent.hprof import chunked
from dumpagent.store.protocol import Body, Limits
from dumpagent.upload.transfer.fingerprint import DumpChanged, Fingerprint, Stopped, drop_behind, read_span

_MAGIC = b"JAVA PROFILE "
_READ_BYTES = 1 << 20
_DROP_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """What goes into one part: `body` is the dump's bytes from `start` to `end`, compressed or as they are."""

    number: int
    body: Body
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Cuts:
    """How large the parts are. Nobody knows how many there will be, so the size grows with the number.

    The first `early_parts`, which every store takes, hold 20 GiB of gzip where `least_bytes` are 8 MiB.
    """

    least_bytes: int
    limits: Limits
    early_parts: int = 1000

    def part_bytes(self, number: int) -> int:
        """Give the least size of part `number`: `least_bytes`, twice, and from half of the early parts on four times."""
        return self.least_bytes << min(2, (number - 1) * 4 // self.early_parts)

    @property
    def most_bytes(self) -> int:
        """Give the largest dump whose parts suffice even if it does not compress at all."""
        quarter = self.early_parts // 4
        units = 3 * quarter + 4 * (self.limits.parts - 2 * quarter)
        return units * self.least_bytes // 64 * 63


def can_pack(fd: int) -> bool:
    """Say whether the file is a plain heap dump: what is gzip already, or no dump at all, is not compressed."""
    return os.pread(fd, len(_MAGIC), 0) == _MAGIC


class Pace:
    """How much CPU to spend on a piece: more while the line is slower than the packing, for it would idle anyway.

    Between two pieces the sender waits until the line takes one.
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
        """Take note that the sender wants the next piece."""
        now = self._clock()
        self._waited_s, self._since = self._waited_s / 2 + now - self._since, now
        # The dense level takes 1.7 times as long; that much must have been spare, and some of it must stay.
        enough_s = self._made_s if self.level == chunked.FAST else self._made_s / 8
        self.level = chunked.DENSE if self._waited_s > enough_s else chunked.FAST


def packed_pieces(
    fd: int,
    fingerprint: Fingerprint,
    cuts: Cuts,
    *,
    number: int = 1,
    start: int = 0,
    block_bytes: int = chunked.BLOCK_BYTES,
    stopped: Callable[[], bool] = lambda: False,
    pace: Pace | None = None,
) -> Iterator[Piece]:
    """Give the parts from `number` on, which begins at the dump's byte `start`.

    Raises DumpChanged if the bytes are not those of the fingerprint, at the latest when there are no more; Stopped.
    """
    if start == fingerprint.size_bytes:
        return  # all parts were sent, and only the completion was cut off
    if fingerprint.block_bytes % block_bytes or start % block_bytes:
        raise ValueError(f"blocks of {block_bytes} do not tile {fingerprint.block_bytes} from {start}")
    pace = pace or Pace()
    proof = _Proof(fd, fingerprint, start)
    members: list[bytes] = []
    packed_bytes, at = 0, start
    for block in _blocks(fd, start, fingerprint.size_bytes, block_bytes):
        if stopped():
            raise Stopped
        member = chunked.pack(block, first=at == 0, block_bytes=block_bytes, level=pace.level)
        proof.add(member.crc32, len(block))
        members.append(member.packed)
        packed_bytes += len(member.packed)
        at += len(block)
        if packed_bytes >= cuts.part_bytes(number):
            yield pace.hand_over(_piece(number, members, start, at))
            pace.go_on()
            packed_bytes, start, number = 0, at, number + 1
    if members:
        yield _piece(number, members, start, at)


def _piece(number: int, members: list[bytes], start: int, end: int) -> Piece:
    """Give the part that the members make, and empty the list of them: their memory is wanted."""
    data = b"".join(members)
    members.clear()
    return Piece(number, Body(data, isal_zlib.crc32(data)), start, end)


class _Proof:
    """Proves that the blocks that are added, one after the other from `start` on, are those of the fingerprint."""

    def __init__(self, fd: int, fingerprint: Fingerprint, start: int) -> None:
        self._fingerprint = fingerprint
        self._at = start
        before = start - start % fingerprint.block_bytes
        self._crc32 = isal_zlib.crc32(read_span(fd, before, start - before))

    def add(self, crc32: int, length: int) -> None:
        """Raises DumpChanged at the end of a block of the fingerprint that has another CRC32."""
        whole = self._fingerprint
        self._crc32 = isal_zlib.crc32_combine(self._crc32, crc32, length)
        self._at += length
        if self._at % whole.block_bytes == 0 or self._at == whole.size_bytes:
            if self._crc32 != whole.block_crc32s[(self._at - 1) // whole.block_bytes]:
                raise DumpChanged(
                    "the file's bytes changed while it was read, its size and time did not",
                    hint="if this comes again, the volume or the memory of the node is failing: nothing was stored",
                )
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
            raise DumpChanged(f"the file was cut while it was read: {at + held} bytes are left of it")
        held += got
    return held
