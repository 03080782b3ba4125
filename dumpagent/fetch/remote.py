"""An object of the store, read at offsets as if it were a file, without keeping it."""

from __future__ import annotations

from dumpagent.fetch.stream import Broken, Forwards, Pause, read_object
from dumpagent.store.protocol import Store, StoredObject

# A gap that is read through rather than asked for anew: a request costs about the time of so many bytes on a good line.
_READ_THROUGH_BYTES = 2 << 20


class RemoteFile:
    """A ByteSource over one object: reading on is one stream, a jump is a new request. Holds about 2 MiB.

    Raises Unreachable, Refused (Replaced: another object stands there meanwhile), Damaged.
    """

    def __init__(
        self,
        store: Store,
        stored: StoredObject,
        *,
        pause: Pause,
        broken: Broken = lambda _offset, _error: None,
    ) -> None:
        self._store, self._stored = store, stored
        self._pause, self._broken = pause, broken
        self._begun_at = 0
        self._stream = self._from(0)

    @property
    def size_bytes(self) -> int:
        return self._stored.size_bytes

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        """Give up to `size_bytes` from `offset`, fewer only at the object's end."""
        if offset >= self.size_bytes:
            return b""
        at = offset - self._begun_at
        if not self._stream.window_at <= at <= self._stream.reached + _READ_THROUGH_BYTES:
            self._begun_at, self._stream = offset, self._from(offset)
            at = 0
        return self._stream.read_at(at, min(size_bytes, self.size_bytes - offset))

    def _from(self, start: int) -> Forwards:
        return Forwards(
            read_object(self._store, self._stored, start=start, pause=self._pause, broken=self._broken)
        )
