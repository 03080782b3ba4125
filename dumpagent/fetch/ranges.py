"""An object's missing bytes, brought into a part file as several ranges at once where one connection would not fill the line.

A connection carries at most its window in each round trip: 4 MiB in 50 ms is 80 MB/s, however wide the line is.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue

from isal import isal_zlib

from dumpagent.errors import DumpagentError
from dumpagent.fetch.part_map import PartMap, Range
from dumpagent.fetch.stream import Broken, Pause, read_object
from dumpagent.kernel.files import write_at
from dumpagent.store.protocol import NoRanges, Store, StoredObject
from dumpagent.units import MIB

RANGE_BYTES = 8 * MIB  # a request costs 1 ms of CPU, and stands still for a round trip
_NEAR_S, _FAR_S = 0.005, 0.02
_SOME, _MANY = 4, 8
_SYNC_BYTES = 256 * MIB


def connections_to(store: Store, stored: StoredObject, missing_bytes: int) -> int:
    """Say how many ranges of the object to read at once. Asks the store for one byte of a large object."""
    # Without an ETag nothing tells that all ranges are of one object.
    if missing_bytes <= 2 * RANGE_BYTES or not stored.etag:
        return 1
    round_trip_s = _round_trip_s(store, stored)
    if round_trip_s is None or round_trip_s < _NEAR_S:
        return 1
    return _SOME if round_trip_s < _FAR_S else _MANY


def bring_ranges(
    store: Store,
    stored: StoredObject,
    part: PartMap,
    *,
    connections: int,
    advance: Callable[[int], None],
    pause: Pause,
    broken: Broken,
) -> None:
    """Bring what the part file lacks, `connections` ranges of it at once.

    Raises Unreachable, Refused (Replaced: another object stands there meanwhile), Damaged, OSError; what has arrived is
    noted in the part file. Threads that wait for the store then are not waited for.
    """
    missing: SimpleQueue[Range] = SimpleQueue()
    for each in part.missing():
        missing.put(each)
    ends: SimpleQueue[BaseException | None] = SimpleQueue()
    brought = _Brought(store, stored, part, advance, pause, broken)
    for number in range(connections):
        # A descriptor for each thread: one that outlives this call must not write to what has its number by then.
        worker = threading.Thread(
            target=brought.work, args=(os.dup(part.fd), missing, ends), name=f"range-{number}", daemon=True
        )
        worker.start()
    try:
        for _ in range(connections):
            error = ends.get()
            if error is not None:
                raise error
    finally:
        brought.ended.set()


class _Brought:
    """What the threads share: each takes the next missing range, until there is none or one of them fails."""

    def __init__(
        self,
        store: Store,
        stored: StoredObject,
        part: PartMap,
        advance: Callable[[int], None],
        pause: Pause,
        broken: Broken,
    ) -> None:
        self.ended = threading.Event()
        self._store, self._stored, self._part = store, stored, part
        self._advance, self._pause, self._broken = advance, pause, broken
        self._lock = threading.Lock()
        self._unsynced_bytes = 0

    def work(self, fd: int, missing: SimpleQueue[Range], ends: SimpleQueue[BaseException | None]) -> None:
        try:
            while not self.ended.is_set():
                self._bring(fd, missing.get_nowait())
        except Empty:
            ends.put(None)
        except BaseException as error:  # noqa: BLE001 - whoever waits for the threads must learn of it
            ends.put(error)
        finally:
            os.close(fd)

    def _bring(self, fd: int, each: Range) -> None:
        at, crc32 = each.start + each.done_bytes, each.crc32
        chunks = read_object(
            self._store, self._stored, start=at, end=each.end, pause=self._pause, broken=self._broken
        )
        for chunk in chunks:
            if self.ended.is_set():
                return
            write_at(fd, chunk, at)
            at += len(chunk)
            crc32 = isal_zlib.crc32(chunk, crc32)
            self._part.note(fd, each, at - each.start, crc32)
            self._told(fd, len(chunk))

    def _told(self, fd: int, size_bytes: int) -> None:
        self._advance(size_bytes)
        with self._lock:
            self._unsynced_bytes += size_bytes
            due = self._unsynced_bytes >= _SYNC_BYTES
            if due:
                self._unsynced_bytes = 0
        if due:  # so that little is left to do at the end, and after a power cut
            os.fdatasync(fd)


def _round_trip_s(store: Store, stored: StoredObject) -> float | None:
    """Give how long the store takes to answer for one byte; None if it gives no single bytes."""
    began = time.monotonic()
    try:
        # The first chunk alone: some give all that follows too.
        first = next(store.read(stored.key, start=0, length=1, etag=stored.etag), b"")
    except NoRanges:
        return None
    except DumpagentError:
        return 0.0  # whoever reads on is told of it, and tries again
    return time.monotonic() - began if len(first) == 1 else None
