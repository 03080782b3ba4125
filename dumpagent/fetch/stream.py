"""An object's bytes as one stream: over broken connections, unpacked, summed up, and readable at growing offsets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from isal import isal_zlib

from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.store.protocol import NoRanges, Store, StoredObject

ATTEMPTS = 6  # without a byte between them; the store's own short retries come on top
_PAUSE_S = 0.25
_PAUSE_MOST_S = 8.0
_GZIP_WBITS = 31
_PIECE_BYTES = 1 << 20
_BadGzip = cast("type[Exception]", isal_zlib.error)  # its stubs call it an instance

Broken = Callable[[int, Unreachable], None]
Pause = Callable[[float], None]


class Damaged(DumpagentError):
    """The bytes are not those that were sent."""


def read_object(
    store: Store,
    stored: StoredObject,
    *,
    start: int = 0,
    end: int | None = None,
    pause: Pause,
    broken: Broken = lambda _offset, _error: None,
) -> Iterator[bytes]:
    """Give the bytes of just this object from `start` to its end, or to `end`, asking again wherever the connection breaks.

    `broken` is told each time, with the offset reached; `pause` sleeps. From a store that gives no part of an object
    what was there already is read once more. Raises Unreachable when ATTEMPTS in a row brought nothing, Replaced if
    another object stands there meanwhile, Damaged if there are more bytes than the object has, Refused.
    """
    at, idle, whole = start, 0, False
    last = stored.size_bytes if end is None else end
    while at < last:
        before = at
        try:
            for chunk in _chunks(store, stored, at, end, whole=whole):
                piece = chunk[: last - at]
                at += len(piece)
                if piece:
                    yield piece
                if len(piece) < len(chunk):
                    if end is None:  # an answer without end would fill the disk
                        raise Damaged(f"{stored.key} gives more bytes than the {last:,} that it has")
                    break  # the store goes on behind the range
            if at < last:
                raise Unreachable(f"reading {stored.key} in {store.name}: the answer ended at byte {at}")
        except NoRanges:
            if whole:
                raise
            whole = True
        except Unreachable as error:
            idle = 1 if at > before else idle + 1
            if idle >= ATTEMPTS:
                raise
            broken(at, error)
            pause(min(_PAUSE_MOST_S, _PAUSE_S * 2**idle))


def _chunks(store: Store, stored: StoredObject, at: int, end: int | None, *, whole: bool) -> Iterator[bytes]:
    if not whole:
        length = None if end is None else end - at
        yield from store.read(stored.key, start=at, length=length, etag=stored.etag)
        return
    passed = 0
    for chunk in store.read(stored.key, etag=stored.etag):
        yield chunk[max(0, at - passed) :]
        passed += len(chunk)


class Summed:
    """Chunks passed on as they come; `crc32` and `size_bytes` are of those that were passed on up to now."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks
        self.crc32 = 0
        self.size_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._chunks:
            self.crc32 = isal_zlib.crc32(chunk, self.crc32)
            self.size_bytes += len(chunk)
            yield chunk


def unpack(packed: Iterable[bytes], *, most_bytes: int | None = None) -> Iterator[bytes]:
    """Give what the members of a gzip stream unpack to, in pieces of at most 1 MiB.

    Raises Damaged where they are not gzip, end inside a member, or unpack to more than `most_bytes`. Source: RFC 1952, section 2.2: members just follow
    each other.
    """
    decoder: Any = None
    read, more_inside, given = 0, False, 0
    for chunk in packed:
        waiting = chunk
        read += len(chunk)
        while waiting or (decoder is not None and more_inside):
            if decoder is None:
                decoder = isal_zlib.decompressobj(_GZIP_WBITS)
            try:
                piece: bytes = decoder.decompress(waiting, _PIECE_BYTES)
            except _BadGzip as error:
                raise Damaged(f"its gzip data is damaged before byte {read} ({error})") from error
            given += len(piece)
            if most_bytes is not None and given > most_bytes:
                raise Damaged(f"it unpacks to more than the {most_bytes:,} bytes that the dump had")
            if piece:
                yield piece
            more_inside = len(piece) == _PIECE_BYTES and not decoder.eof
            if decoder.eof:
                waiting, decoder = decoder.unused_data, None
            else:
                waiting = decoder.unconsumed_tail
    if decoder is not None:
        raise Damaged(f"its gzip data ends inside a member, at byte {read}")


class Forwards:
    """A ByteSource over a stream, for readers whose offsets never shrink; holds little more than the last answer."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._window = b""
        self._window_at = 0

    @property
    def window_at(self) -> int:
        """The least offset that can still be read."""
        return self._window_at

    @property
    def reached(self) -> int:
        """How far the stream was read."""
        return self._window_at + len(self._window)

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Give up to `size_bytes` from `offset`; fewer only at the stream's end. Raises what the stream raises."""
        if offset < self._window_at:
            raise ValueError(f"byte {offset} has gone by; the stream is at {self._window_at}")
        if self._window_at + len(self._window) < offset + size_bytes:
            self._pull(offset, offset + size_bytes)
        start = offset - self._window_at
        return self._window[start : start + size_bytes]

    def _pull(self, offset: int, end: int) -> None:
        """Bring the window to `end`, or the stream's; what stands before `offset` is let go."""
        reached = self._window_at + len(self._window)
        pieces = [self._window[offset - self._window_at :]]
        while reached < end and (chunk := next(self._chunks, b"")):
            if reached + len(chunk) > offset:
                pieces.append(chunk[max(0, offset - reached) :])
            reached += len(chunk)
        self._window, self._window_at = b"".join(pieces), min(offset, reached)

    def rest(self) -> Iterator[bytes]:
        """Give everything from the last window on; `read_at` is of no more use then."""
        if self._window:
            yield self._window
        yield from self._chunks

    def drain(self) -> None:
        """Read the stream to its end."""
        for _ in self._chunks:
            pass
