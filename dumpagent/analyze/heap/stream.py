"""The bytes of a heap dump from its start to its end, plain or unpacked from gzip, in pieces that need not be copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
from isal import isal_zlib

from dumpagent.analyze.native import Array
from dumpagent.hprof import records
from dumpagent.hprof.source import ByteSource

_READ_BYTES = 1 << 20
_PACKED_BYTES = 256 * 1024
_GZIP_WBITS = 31
_BadGzip = cast("type[Exception]", isal_zlib.error)
# No record that must be looked at in one piece is longer: a class with 65535 statics of 17 bytes, as many fields.
BUFFER_BYTES = 8 << 20
Progress = Callable[[int], None]


class Stream:
    """Reads a dump once from `source`. `problem` says, as a clause, why it ended before its end, if it did.

    `size_bytes` is the file's size; of a packed one it says nothing of the dump, and is None once that was seen. `progress` is told how many of the file's bytes were read since the last call.
    """

    def __init__(
        self,
        source: ByteSource,
        *,
        size_bytes: int | None = None,
        progress: Progress = lambda _bytes: None,
    ) -> None:
        self._source, self.size_bytes, self._progress = source, size_bytes, progress
        self.problem = ""

    def pieces(self) -> Iterator[bytes]:
        """Give the dump's bytes. Raises OSError."""
        offset, decoder, packed = 0, None, b""
        first = self._source.read_at(0, len(records.GZIP_MAGIC)) == records.GZIP_MAGIC
        if not first:
            while piece := self._source.read_at(offset, _READ_BYTES):
                offset += len(piece)
                self._progress(len(piece))
                yield piece
            return
        self.size_bytes, decoder = None, None
        while True:
            if not packed:
                packed = self._source.read_at(offset, _PACKED_BYTES)
                offset += len(packed)
                self._progress(len(packed))
                if not packed:
                    if decoder is not None:
                        self.problem = "it ends inside a gzip member"
                    return
            try:
                decoder = decoder or isal_zlib.decompressobj(_GZIP_WBITS)
                yield from self._unpack(decoder, packed)
            except _BadGzip as error:
                self.problem = f"its gzip member before packed byte {offset} is damaged ({error})"
                return
            packed = decoder.unused_data if decoder.eof else b""
            decoder = None if decoder.eof else decoder

    @staticmethod
    def _unpack(decoder: Any, packed: bytes) -> Iterator[bytes]:
        while True:
            piece: bytes = decoder.decompress(packed, _READ_BYTES)
            packed = decoder.unconsumed_tail
            if piece:
                yield piece
            if decoder.eof or (not packed and len(piece) < _READ_BYTES):
                return


class Buffer:
    """A window over a stream: what is in it can be looked at in one piece, however the stream was cut."""

    def __init__(self, stream: Stream) -> None:
        self._pieces = stream.pieces()
        self.content: Array = np.zeros(BUFFER_BYTES, np.uint8)
        self.position = 0
        self.end = 0
        self.offset = 0  # in the dump, of content[0]

    @property
    def left(self) -> int:
        return self.end - self.position

    def more(self) -> bool:
        """Read more behind what is there; say whether there was more. Raises OSError, BufferError."""
        piece = next(self._pieces, b"")
        if not piece:
            return False
        if self.position and self.end + len(piece) > BUFFER_BYTES:
            kept = self.end - self.position
            self.content[:kept] = self.content[self.position : self.end].copy()
            self.offset += self.position
            self.position, self.end = 0, kept
        if self.end + len(piece) > BUFFER_BYTES:
            raise BufferError(f"a record at byte {self.offset + self.position} is longer than any can be")
        self.content[self.end : self.end + len(piece)] = np.frombuffer(piece, np.uint8)
        self.end += len(piece)
        return True

    def need(self, size_bytes: int) -> bool:
        """Have `size_bytes` bytes at hand, if the stream has them. Raises OSError, BufferError."""
        while self.left < size_bytes:
            if not self.more():
                return False
        return True

    def take(self, size_bytes: int) -> bytes:
        """Give the next bytes, all or fewer at the end."""
        self.need(size_bytes)
        taken = self.content[self.position : min(self.end, self.position + size_bytes)].tobytes()
        self.position += len(taken)
        return taken

    def skip(self, size_bytes: int) -> bool:
        """Pass over bytes; say whether they were all there."""
        while size_bytes > self.left:
            size_bytes -= self.left
            self.position = self.end
            if not self.more():
                return False
        self.position += size_bytes
        return True
