"""One multipart upload of a dump: found again or begun, its parts sent several at once, given up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from isal import isal_zlib

from dumpagent.dumps import metadata
from dumpagent.dumps.receipt import Journal, PackedPart, Unfinished
from dumpagent.dumps.source import (
    FileSpan,
    SourceChanged,
    Stop,
    Stopped,
    confirm_unchanged,
    read_span,
)
from dumpagent.errors import DumpagentError, Refused
from dumpagent.kernel.cgroup import cpu_limit_cores, memory_limit_bytes
from dumpagent.part_sizes import workers_for
from dumpagent.store.md5 import md5_of
from dumpagent.store.protocol import Body, LookRefused, NoSuchUpload, Part, Store
from dumpagent.store.reservation import release
from dumpagent.units import MIB
from dumpagent.upload.transfer.gzip_parts import Piece
from dumpagent.upload.transfer.job import PreparedJob
from dumpagent.upload.transfer.throttle import CpuThrottle, InTurn

# Up to this round trip one after the other will do, if that keeps the CPU busy: on a longer line a connection that had
# to wait for its turn begins slowly again.
_SAME_PLACE_S = 0.005

Progress = Callable[[int], None]


@dataclass(slots=True)
class Run:
    """One multipart upload under way: what the store holds of it."""

    upload: Unfinished
    held: dict[int, Part] = field(default_factory=dict)
    sent_bytes: int = 0

    def note(self, arrived: Arrived, *, packed: bool) -> None:
        """Take note of a part that the store has confirmed."""
        part, piece = arrived.part, arrived.piece
        self.held[part.number] = part
        self.sent_bytes += part.size_bytes
        if packed:
            noted = PackedPart(
                part.etag,
                part.size_bytes,
                part.crc32 or 0,
                piece.end,
                piece.carried_bytes,
                piece.carried_crc32,
                piece.level,
            )
            self.upload = replace(self.upload, packed={**self.upload.packed, part.number: noted})
        else:
            self.upload = replace(self.upload, etags={**self.upload.etags, part.number: part.etag})

    def bytes_of_dump(self, *, packed: bool) -> int:
        """Give how many bytes of the dump are in the parts that the store holds."""
        if packed:
            return self.upload.packed[len(self.held)].end if self.held else 0
        return sum(part.size_bytes for part in self.held.values())


@dataclass(frozen=True, slots=True)
class Arrived:
    """A part that the store has, and which bytes of the dump are in it: `piece` without its body."""

    part: Part
    piece: Piece


# -- the pieces -------------------------------------------------------------------------------------------------


def plain_pieces(
    job: PreparedJob,
    part_bytes: int,
    held: dict[int, Part],
    *,
    block_bytes: int,
    stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Piece]:
    """Give the spans of the dump that are not among `held`, each made when it is asked for."""
    size_bytes = job.contents.size_bytes
    for number, start in enumerate(range(0, size_bytes, part_bytes), start=1):
        if number not in held:
            length = min(part_bytes, size_bytes - start)
            crc32 = job.fingerprint.crc32_of(start, length)
            span = FileSpan(job.fd, start, length, crc32, stopped=stopped, read_bytes=block_bytes)
            yield Piece(number, Body(span, crc32), start, start + length)


def combined(parts: list[Part]) -> int:
    """Give the CRC32 of the object that these parts make."""
    crc32 = 0
    for part in parts:
        crc32 = isal_zlib.crc32_combine(crc32, part.crc32 or 0, part.size_bytes)
    return crc32


# -- an upload that goes on -------------------------------------------------------------------------------------


def find_unfinished(store: Store, journal: Journal, job: PreparedJob, key: str, *, prefix: str) -> Run | None:
    """Give the upload of this dump to this key that can go on, with the parts that the store holds of it.

    The journal is asked first, and where that is lost, the store. One that was cut off before any part arrived goes
    on with smaller parts: on a line that breaks often, those arrive.
    """
    known = journal.unfinished(job.identity)
    if known:
        same = known.crc32 == job.contents.crc32 and _fits(known, job)
        if known.key == key and same:
            try:
                held = _held(job, known, _stored_parts(store, job, known))
            except NoSuchUpload:
                journal.forget_unfinished(job.identity)
            else:
                return Run(known if held else replace(known, part_bytes=_smallest(job)), held)
        else:
            give_up(store, known, prefix=prefix)
            journal.forget_unfinished(job.identity)
    if job.packed or job.contents.size_bytes <= job.sizes.part:
        return None  # compressed parts do not tell which bytes of the dump they are: that upload begins anew
    return _adopt(store, journal, job, key)


def _smallest(job: PreparedJob) -> int:
    return job.sizes.packed if job.packed else job.sizes.part


def _stored_parts(store: Store, job: PreparedJob, known: Unfinished) -> list[Part]:
    """Give the parts that the store holds; where it does not list them, those that it has confirmed to us."""
    try:
        return store.parts(known.key, known.upload_id)
    except NoSuchUpload:
        raise
    except Refused:
        pass
    if job.packed:
        return [
            Part(number, noted.size_bytes, noted.etag, noted.crc32)
            for number, noted in sorted(known.packed.items())
        ]
    size_bytes = job.contents.size_bytes
    return [
        Part(number, min(known.part_bytes, size_bytes - (number - 1) * known.part_bytes), etag)
        for number, etag in sorted(known.etags.items())
    ]


def _adopt(store: Store, journal: Journal, job: PreparedJob, key: str) -> Run | None:
    """Give an open upload under `key` all of whose parts are spans of this very dump, if the state was lost."""
    try:
        left_open = [left for left in store.open_uploads(key) if left.key == key]
    except Refused:
        return None  # not allowed to list, or not known there: we begin anew
    for left in left_open:
        try:
            stored = store.parts(key, left.upload_id)
        except Refused:
            continue
        part_bytes = max((part.size_bytes for part in stored), default=0)  # all but the last have it
        upload = Unfinished(job.identity, store.name, key, left.upload_id, part_bytes, job.contents.crc32)
        if not _fits(upload, job):
            continue
        held = _matching(upload, job, stored)
        if len(held) == len(stored):
            journal.note_unfinished(upload)
            return Run(upload, held)
    return None


def _held(job: PreparedJob, upload: Unfinished, stored: list[Part]) -> dict[int, Part]:
    return _packed(upload, stored) if job.packed else _matching(upload, job, stored)


def _matching(upload: Unfinished, job: PreparedJob, stored: list[Part]) -> dict[int, Part]:
    """Give the parts in the store that hold this dump's bytes: by the noted ETag, the CRC32, or the MD5."""
    held = {}
    for part in stored:
        start = (part.number - 1) * upload.part_bytes
        length = min(upload.part_bytes, job.contents.size_bytes - start)
        if length <= 0 or part.size_bytes != length:
            continue
        crc32 = job.fingerprint.crc32_of(start, length)
        noted = upload.etags.get(part.number)
        if (
            noted == part.etag
            or part.crc32 == crc32
            or (noted is None and part.etag == _md5_of(job.fd, start, length))
        ):
            held[part.number] = replace(part, crc32=crc32)
    return held


def _packed(upload: Unfinished, stored: list[Part]) -> dict[int, Part]:
    """Give the parts that the store holds as they were noted, from the first up to the first that is missing."""
    by_number = {part.number: part for part in stored}
    held: dict[int, Part] = {}
    for number, noted in sorted(upload.packed.items()):
        found = by_number.get(number)
        if (
            number != len(held) + 1
            or found is None
            or (found.etag, found.size_bytes) != (noted.etag, noted.size_bytes)
        ):
            break
        held[number] = replace(found, crc32=noted.crc32)
    return held


def _fits(upload: Unfinished, job: PreparedJob) -> bool:
    """Say whether the dump can go on in parts of that size, whichever version of the agent chose it."""
    if job.packed:
        return upload.part_bytes == job.sizes.packed and not upload.etags
    block_bytes = job.fingerprint.block_bytes
    return (
        job.sizes.part <= upload.part_bytes <= job.sizes.large
        and upload.part_bytes % block_bytes == 0
        and not upload.packed
    )


def _md5_of(fd: int, start: int, length: int) -> str | None:
    """Give the MD5 of a part in hex, None where the machine has none (FIPS): then the part is sent again."""
    starts = range(start, start + length, MIB)
    md5 = md5_of(read_span(fd, at, min(MIB, start + length - at)) for at in starts)
    return md5.hex() if md5 is not None else None


def give_up(store: Store, upload: Unfinished, *, prefix: str) -> None:
    """Abort an upload of ours and release its key. The journal is the caller's. Raises Unreachable."""
    contents = metadata.Contents(upload.identity.size_bytes, upload.crc32)
    try:
        store.abort(upload.key, upload.upload_id)
    except Refused:
        pass  # may not abort: the bucket's lifecycle rule does
    try:
        there = store.look(upload.key)
        if there is None:
            if store.must_reserve():
                release(store, upload.key, metadata.proof_of(contents), prefix=prefix)
        elif there.reserved and metadata.holds(there.metadata, contents):
            store.delete(upload.key)
    except LookRefused:
        pass  # a reservation stays: a small object, whose key nobody uses


# -- sending ----------------------------------------------------------------------------------------------------


class PartSender:
    """Sends parts on `workers` threads, as many as the round trip asks for if that is not given."""

    def __init__(self, store: Store, *, stop: Stop, workers: int | None = None, prefix: str = "") -> None:
        self._store, self._stop, self._workers, self._prefix = store, stop, workers, prefix

    def send(
        self,
        job: PreparedJob,
        run: Run,
        pieces: Iterator[Piece],
        journal: Journal,
        progress: Progress,
        *,
        round_trip_s: float,
    ) -> None:
        """Send the pieces, several at once, and make the next one meanwhile; `run` tells what has arrived.

        Raises Stopped, SourceChanged (the upload was given up) and what the store raises.
        """
        workers = self._workers or workers_for(round_trip_s, memory_limit_bytes())
        throttle = CpuThrottle(cpu_limit_cores() or 1.0) if round_trip_s < _SAME_PLACE_S else None
        under_way: set[Future[Arrived]] = set()

        def note(future: Future[Arrived]) -> None:
            arrived = future.result()
            run.note(arrived, packed=job.packed)
            progress(arrived.piece.end - arrived.piece.start)

        with ThreadPoolExecutor(workers, thread_name_prefix="part") as pool:
            try:
                ready = next(pieces, None)
                while ready or under_way:
                    while ready and len(under_way) < workers:
                        under_way.add(pool.submit(self._send, run.upload, ready, throttle))
                        ready = next(pieces, None)
                    done, _ = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        note(future)
                        under_way.discard(future)
                    if self._stop.is_set_between() and (ready or under_way):
                        raise Stopped
                    confirm_unchanged(job.fd, job.identity)
                    journal.note_unfinished(run.upload)  # so that a kill costs what is under way, no more
            except BaseException as error:
                self._end(under_way, note)
                if isinstance(error, SourceChanged):
                    journal.forget_unfinished(job.identity)
                    give_up(self._store, run.upload, prefix=self._prefix)
                else:
                    journal.note_unfinished(run.upload)
                raise

    def _send(self, upload: Unfinished, piece: Piece, throttle: CpuThrottle | None) -> Arrived:
        body = piece.body
        if throttle and not isinstance(body.data, bytes):
            body = Body(InTurn(body.data, throttle), body.crc32)
        try:
            part = self._store.send_part(upload.key, upload.upload_id, piece.number, body)
        finally:
            if throttle:
                throttle.give()
        return Arrived(part, piece.without_body())  # the body's memory is wanted

    @staticmethod
    def _end(under_way: set[Future[Arrived]], note: Callable[[Future[Arrived]], None]) -> None:
        """Wait for the parts that are under way, and take note of those that arrive: they are not sent again."""
        for future in under_way:
            future.cancel()
        wait(under_way)
        for future in under_way:
            try:
                note(future)
            except (DumpagentError, OSError, Stopped):
                pass  # the first error is the one that is told
            except BaseException as error:  # noqa: BLE001 - cancelled, or a fault of ours that another one hides
                del error
