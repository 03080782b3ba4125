"""Cuts a dump into parts and sends those that the store does not hold, several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from isal import isal_zlib

from dumpagent.errors import Refused
from dumpagent.kernel.cgroup import cpu_limit_cores, memory_limit_bytes
from dumpagent.settings import MIB
from dumpagent.store.protocol import Body, Limits, Part, Store
from dumpagent.upload.ledger import Ledger, PackedPart, Unfinished
from dumpagent.upload.transfer.fingerprint import DumpChanged, FileSpan, Stopped, confirm_unchanged
from dumpagent.upload.transfer.gzip_parts import Piece
from dumpagent.upload.transfer.job import PreparedJob
from dumpagent.upload.transfer.leftovers import Leftovers
from dumpagent.upload.transfer.throttle import CpuThrottle, InTurn

# Measured against a 100 ms round trip at 0.2 CPU: smaller ones wait for answers.
PART_BYTES = 16 * MIB
# Each request costs some milliseconds of CPU: a GiB in parts of 64 MiB three quarters of one in parts of 16 MiB, and
# twice as much gains a tenth more. Parts are streamed, so their size costs no memory; but one that is cut off is sent
# anew, so a dump of few parts keeps smaller ones.
_LARGE_TIMES, _LARGE_COUNT = 4, 8
_PARTS_EVERYWHERE = 1000
# Parts that are sent at once: two hide each other's wait for the answer. Far away, four do it better.
_WORKERS, _WORKERS_FAR, _FAR_S = 2, 4, 0.05
# Up to this round trip one after the other will do, if that keeps the CPU busy: on a longer line a connection that had
# to wait for its turn begins slowly again.
_SAME_PLACE_S = 0.005
_SCANTY_BYTES = 160 * MIB  # below this memory limit two must do

Progress = Callable[[int], None]


def part_size(size_bytes: int, *, limits: Limits, least_bytes: int = PART_BYTES) -> int:
    """Give the bytes per part: `least_bytes`, or the smallest multiple of it with which the parts suffice.

    A thousand parts if they can hold the dump, which every store takes (OpenStack Swift no more: its
    max_upload_part_num); else as many as S3 takes.
    Source: S3 User Guide, "Amazon S3 multipart upload limits": 10,000 parts, 5 MiB to 5 GiB each, 5 TiB in all.
    Raises Refused for a dump that no S3 object can hold.
    """
    if size_bytes > limits.object_max_bytes:
        raise Refused(
            f"the dump has {size_bytes} bytes, the largest object {limits.object_max_bytes}",
            hint="no S3 store takes it in one object; compress it by hand",
        )
    for most_parts in (min(_PARTS_EVERYWHERE, limits.parts), limits.parts):
        part_bytes = (-(-size_bytes // (most_parts * least_bytes)) or 1) * least_bytes
        if part_bytes <= limits.part_max_bytes:
            break
    return part_bytes


def large_part_size(size_bytes: int, part_bytes: int, *, least_bytes: int = PART_BYTES) -> int:
    """Give the bytes per part with which a dump is cheapest to send, a multiple of `part_bytes`, its `part_size`."""
    times = min(_LARGE_TIMES * least_bytes // part_bytes, size_bytes // (_LARGE_COUNT * part_bytes))
    return part_bytes * max(1, times)


def workers_for(round_trip_s: float, memory_bytes: int | None) -> int:
    """Say how many parts to send at once to a store that answers after `round_trip_s`."""
    if round_trip_s < _FAR_S or (memory_bytes is not None and memory_bytes < _SCANTY_BYTES):
        return _WORKERS
    return _WORKERS_FAR


def plain_pieces(
    load: PreparedJob,
    part_bytes: int,
    held: dict[int, Part],
    *,
    block_bytes: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Piece]:
    """Give the spans of the dump that are not among `held`, each made when it is asked for."""
    size_bytes = load.contents.size_bytes
    for number, start in enumerate(range(0, size_bytes, part_bytes), start=1):
        if number not in held:
            length = min(part_bytes, size_bytes - start)
            crc32 = load.fingerprint.crc32_of(start, length)
            span = FileSpan(load.fd, start, length, crc32, stopped=stopped, read_bytes=block_bytes)
            yield Piece(number, Body(span, crc32), start, start + length)


def combined(parts: list[Part]) -> int:
    """Give the CRC32 of the object that these parts make."""
    crc32 = 0
    for part in parts:
        crc32 = isal_zlib.crc32_combine(crc32, part.crc32 or 0, part.size_bytes)
    return crc32


@dataclass(slots=True)
class Run:
    """One multipart upload under way: what the store holds of it."""

    upload: Unfinished
    held: dict[int, Part] = field(default_factory=dict)
    sent_bytes: int = 0

    def note(self, arrived: _Arrived, *, packed: bool) -> None:
        """Take note of a part that the store has confirmed."""
        part = arrived.part
        self.held[part.number] = part
        self.sent_bytes += part.size_bytes
        if packed:
            noted = PackedPart(part.etag, part.size_bytes, part.crc32 or 0, arrived.end)
            self.upload = replace(self.upload, packed={**self.upload.packed, part.number: noted})
        else:
            self.upload = replace(self.upload, etags={**self.upload.etags, part.number: part.etag})

    def bytes_of_dump(self, *, packed: bool) -> int:
        """Give how many bytes of the dump are in the parts that the store holds."""
        if packed:
            return self.upload.packed[len(self.held)].end if self.held else 0
        return sum(part.size_bytes for part in self.held.values())


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A part that the store has, and the bytes of the dump that are in it."""

    part: Part
    start: int
    end: int


class PartSender:
    """Sends parts on `workers` threads, as many as the round trip asks for if that is not given."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        leftovers: Leftovers,
        *,
        stop: threading.Event,
        workers: int | None = None,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._leftovers = leftovers
        self._stop = stop
        self._workers = workers

    def send(
        self, load: PreparedJob, run: Run, pieces: Iterator[Piece], progress: Progress, *, round_trip_s: float
    ) -> None:
        """Send the pieces, several at once, and make the next one meanwhile; `run` tells what has arrived.

        Raises Stopped, DumpChanged (the upload was given up) and what the store raises.
        """
        upload = run.upload
        workers = self._workers or workers_for(round_trip_s, memory_limit_bytes())
        turns = CpuThrottle(cpu_limit_cores() or 1.0)

        def send(piece: Piece) -> _Arrived:
            body = piece.body
            if round_trip_s < _SAME_PLACE_S and not isinstance(body.data, bytes):
                body = Body(InTurn(body.data, turns), body.crc32)
            try:
                part = self._store.send_part(upload.key, upload.upload_id, piece.number, body)
            finally:
                turns.give()
            return _Arrived(part, piece.start, piece.end)  # without the body: its memory is wanted

        with ThreadPoolExecutor(workers, thread_name_prefix="part") as pool:
            under_way: set[Future[_Arrived]] = set()
            try:
                ready = next(pieces, None)
                while ready or under_way:
                    while ready and len(under_way) < workers:
                        under_way.add(pool.submit(send, ready))
                        ready = next(pieces, None)
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        arrived = future.result()
                        run.note(arrived, packed=load.packed)
                        progress(arrived.end - arrived.start)
                    if self._stop.is_set():
                        raise Stopped
                    confirm_unchanged(load.fd, load.errand.dump.identity)
                    self._ledger.note_unfinished(
                        run.upload
                    )  # so that a kill costs what is under way, no more
            except DumpChanged:
                self._ledger.forget_unfinished(load.errand.dump.identity)
                for future in under_way:
                    future.cancel()
                wait(under_way)
                self._leftovers.give_up(upload)
                raise
            except BaseException:
                self._ledger.note_unfinished(run.upload)
                raise
