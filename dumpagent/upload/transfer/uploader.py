"""Uploads one dump: never over another object, never twice, never half.

The order: fingerprint the file, find its key, send what the store does not hold yet, confirm the result, write its index
entry, and only then give a receipt. Every step can be cut off; the next run begins at the first one and finds what is there.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator

from dumpagent.dumps import metadata
from dumpagent.dumps.fingerprint import HalfRead, take_fingerprint
from dumpagent.dumps.kind import HEAD_BYTES, is_plain_dump
from dumpagent.dumps.model import DumpFile, Verdict
from dumpagent.dumps.receipt import Journal, Receipt, Unfinished
from dumpagent.dumps.source import FileSpan, Stop, Stopped, confirm_unchanged, drop_behind, open_dump
from dumpagent.errors import Refused
from dumpagent.hprof import chunked
from dumpagent.part_sizes import PART_BYTES, sizes_for
from dumpagent.settings import Place
from dumpagent.store.protocol import Body, NoSuchUpload, Occupied, Part, Store, TooLarge
from dumpagent.store.reservation import release, reserve
from dumpagent.upload.transfer.gzip_parts import CannotGoOn, Piece, packed_pieces
from dumpagent.upload.transfer.job import Job, PreparedJob
from dumpagent.upload.transfer.multipart import (
    PartSender,
    Progress,
    Run,
    combined,
    find_unfinished,
    give_up,
    plain_pieces,
)
from dumpagent.upload.transfer.standing import (
    Confirmed,
    KeyChoice,
    Sent,
    Standing,
    confirm,
    key_choices,
    standing_of,
)

# A store, or a proxy before it, that takes less at once: each refusal halves the parts, down to 5 MiB.
_SMALLER_PARTS_TIMES = 12


Index = Callable[
    [DumpFile, Verdict, str, Receipt], None
]  # writes the entry of a stored dump; raises Unreachable


def no_index(_dump: DumpFile, _verdict: Verdict, _original: str, _receipt: Receipt) -> None:
    """Write no index entry."""


class Uploader:
    """Uploads dumps into `store`, one call of `upload` at a time; parts are sent by threads.

    `packed`: plain dumps become .hprof.gz on their way. `workers`: threads, by the round trip if not given.
    `part_bytes`: the usual size of a part. `index` writes the entry of each dump that is stored, before its receipt is given.
    """

    def __init__(
        self,
        store: Store,
        place: Place,
        *,
        prefix: str = "",
        packed: bool = False,
        stop: threading.Event | None = None,
        index: Index = no_index,
        part_bytes: int = PART_BYTES,
        block_bytes: int = chunked.BLOCK_BYTES,
        workers: int | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._place, self._prefix, self._packed = store, place, prefix, packed
        self._stop = Stop(stop or threading.Event())
        self._part_bytes, self._block_bytes = part_bytes, block_bytes
        self._now, self._monotonic, self._index = now, monotonic, index
        self._parts = PartSender(store, stop=self._stop, workers=workers, prefix=prefix)
        self._round_trip_s = 0.0
        self._half_read = HalfRead()

    def give_way_when(
        self, somebody_waits: Callable[[], bool], *, turn_is_over: Callable[[], bool] = lambda: False
    ) -> None:
        """Have an upload cut off, as at a stop, when `somebody_waits`, or between two parts when `turn_is_over`.

        They are asked all the time, by several threads.
        """
        self._stop.somebody_waits, self._stop.turn_is_over = somebody_waits, turn_is_over

    def upload(self, job: Job, journal: Journal, *, progress: Progress = lambda _bytes: None) -> Receipt:
        """Give the receipt of the dump once the store holds it, whoever put it there.

        Raises SourceChanged if the file is not what was judged, Refused, Unreachable or NotAsSent by the store, OSError
        by the volume, Stopped if the agent ends. After each the dump is to be uploaded again; nothing is half-stored.
        """
        fd = open_dump(job.dump)
        kept = False
        try:
            for left in reversed(range(_SMALLER_PARTS_TIMES)):
                prepared = self._prepare(job, fd)
                confirm_unchanged(fd, job.dump.identity)
                try:
                    receipt = self._upload(prepared, journal, progress)
                    self._index(job.dump, job.verdict, job.original, receipt)
                    return receipt
                except (TooLarge, CannotGoOn):
                    self._begin_anew(prepared, journal)
                    if not left:
                        raise
            raise AssertionError("unreachable")
        except Stopped:
            kept = True  # it goes on where it was
            raise
        finally:
            if not kept:
                self._half_read.forget(job.dump)
            drop_behind(fd, 0, 0)  # what was read here must not count against the pod's memory
            os.close(fd)

    def foresee(self, job: Job) -> KeyChoice:
        """Give the key that the dump would get, and what stands there now. Asks the store, changes nothing."""
        fd = open_dump(job.dump)
        try:
            return next(self._choices(self._prepare(job, fd)))
        finally:
            self._half_read.forget(job.dump)
            os.close(fd)

    def _prepare(self, job: Job, fd: int) -> PreparedJob:
        """Read the whole dump once and choose the size of its parts. Raises Stopped, SourceChanged, Refused, OSError."""
        size_bytes = job.dump.size_bytes
        sizes = sizes_for(size_bytes, limits=self._store.limits, usual_bytes=self._part_bytes)
        packable = job.stored_as is None and is_plain_dump(os.pread(fd, HEAD_BYTES, 0))
        fingerprint = take_fingerprint(
            fd,
            size_bytes,
            block_bytes=sizes.block,
            stopped=self._stop.is_set_between,
            blocks=self._half_read.blocks_of(job.dump, sizes.block),
        )
        contents = metadata.Contents(size_bytes, fingerprint.crc32, job.dump.uid)
        packed = self._packed and packable and sizes.can_pack
        return PreparedJob(job, fd, fingerprint, contents, sizes, packed, packable)

    # -- the order of things ------------------------------------------------------------------------------------

    def _choices(self, job: PreparedJob) -> Iterator[KeyChoice]:
        node = self._place.node_name
        return key_choices(self._store, job, prefix=self._prefix, node=node, monotonic=self._monotonic)

    def _upload(self, job: PreparedJob, journal: Journal, progress: Progress) -> Receipt:
        for candidate in self._choices(job):
            replace, self._round_trip_s = False, candidate.round_trip_s
            match candidate.found.standing:
                case Standing.WHOLE:
                    return self._already(job, journal, candidate)
                case Standing.BROKEN if not self._delete(candidate.key):
                    continue  # an earlier run was told that it is stored; of no use to anybody, and not ours to delete
                case Standing.RESERVED_BY_US:
                    replace = not self._delete(candidate.key)
                    if candidate.is_other_form:
                        continue
            receipt = self._send(job, candidate.key, journal, progress, replace=replace)
            if receipt:
                return receipt
        raise AssertionError("the candidates end with an error")

    def _delete(self, key: str) -> bool:
        try:
            self._store.delete(key)
        except Refused:
            return False  # these credentials may only write: the next key will do
        return True

    def _begin_anew(self, job: PreparedJob, journal: Journal) -> None:
        noted = journal.unfinished(job.identity)
        if noted:
            give_up(self._store, noted, prefix=self._prefix)
            journal.forget_unfinished(job.identity)

    def _already(self, job: PreparedJob, journal: Journal, candidate: KeyChoice) -> Receipt:
        there = Sent(candidate.found.stored_bytes, job.contents.crc32, sent_bytes=0)
        confirmed = Confirmed(looked=True, described=candidate.found.described)
        return self._receipt(job, journal, candidate.key, there, confirmed)

    def _receipt(
        self, job: PreparedJob, journal: Journal, key: str, sent: Sent, confirmed: Confirmed
    ) -> Receipt:
        noted = journal.unfinished(job.identity)
        if noted and noted.upload_id != sent.upload_id:
            give_up(self._store, noted, prefix=self._prefix)
        return Receipt(
            identity=job.identity,
            path=job.job.original,
            store=self._store.name,
            key=key,
            crc32=job.contents.crc32,
            stored_bytes=sent.stored_bytes,
            uploaded_at=self._now(),
            verified=confirmed.looked,
            described=confirmed.described or not confirmed.looked,
            sent_bytes=sent.sent_bytes,
            resumed=sent.resumed,
        )

    # -- making the object --------------------------------------------------------------------------------------

    def _send(
        self, job: PreparedJob, key: str, journal: Journal, progress: Progress, *, replace: bool = False
    ) -> Receipt | None:
        """Make the object and give its receipt; None if another object has the key by now."""
        described = metadata.describe(
            job.job.dump,
            job.job.verdict,
            job.contents,
            original=job.job.original,
            place=self._place,
            now=self._now(),
        )
        try:
            sent = self._make(job, key, described, journal, progress, replace=replace)
        except Occupied:
            # Somebody was faster, or our own earlier request was carried out and its answer lost.
            journal.forget_unfinished(job.identity)
            return self._whole(job, journal, key)
        except NoSuchUpload:
            # Completed by a request whose answer was lost, or aborted by somebody: the key tells which.
            journal.forget_unfinished(job.identity)
            receipt = self._whole(job, journal, key)
            if receipt is None:
                raise
            return receipt
        confirmed = confirm(self._store, key, job.contents, sent, wait=self._stop.wait)
        if self._store.must_reserve() and self._store.can_delete():
            # Elsewhere it stays, as the dump's index entry.
            release(self._store, key, described, prefix=self._prefix)
        return self._receipt(job, journal, key, sent, confirmed)

    def _whole(self, job: PreparedJob, journal: Journal, key: str) -> Receipt | None:
        found = standing_of(self._store, key, job, packed=job.packed, prefix=self._prefix)
        if found.standing is not Standing.WHOLE:
            return None
        return self._already(job, journal, KeyChoice(key, found))

    def _make(
        self,
        job: PreparedJob,
        key: str,
        described: dict[str, str],
        journal: Journal,
        progress: Progress,
        *,
        replace: bool,
    ) -> Sent:
        """Make the object in one request or in parts. Raises Occupied, NoSuchUpload."""
        if self._goes_whole(job, journal):
            return self._put(job, key, described, self._whole_body(job), progress)
        run = find_unfinished(self._store, journal, job, key, prefix=self._prefix)
        resumed = run is not None
        pieces = self._pieces(job, run)
        if run is None:
            first = next(pieces, None) or Piece(1, Body(b"", 0), 0, 0)
            if first.end == job.contents.size_bytes and not first.carried_bytes:
                return self._put(job, key, described, first.body, progress)
            pieces = itertools.chain([first], pieces)
            run = Run(self._begin(job, key, described, journal))
        progress(run.bytes_of_dump(packed=job.packed))
        self._parts.send(job, run, pieces, journal, progress, round_trip_s=self._round_trip_s)
        confirm_unchanged(job.fd, job.identity)
        parts = [part for _, part in sorted(run.held.items())]
        crc32 = combined(parts) if job.packed else job.contents.crc32
        self._complete(job, run.upload, parts, crc32, replace=replace)
        size_bytes = sum(part.size_bytes for part in parts)
        return Sent(size_bytes, crc32, run.sent_bytes, resumed, run.upload.upload_id)

    def _goes_whole(self, job: PreparedJob, journal: Journal) -> bool:
        """Say whether one request makes the object: no upload in parts was begun, and one part holds the plain dump."""
        is_small = not job.packed and job.contents.size_bytes <= job.sizes.part
        return is_small and journal.unfinished(job.identity) is None

    def _whole_body(self, job: PreparedJob) -> Body:
        size_bytes, crc32 = job.contents.size_bytes, job.contents.crc32
        if not size_bytes:
            return Body(b"", 0)
        block_bytes = self._store.limits.block_bytes
        span = FileSpan(job.fd, 0, size_bytes, crc32, stopped=self._stop.is_set, read_bytes=block_bytes)
        return Body(span, crc32)

    def _put(
        self, job: PreparedJob, key: str, described: dict[str, str], body: Body, progress: Progress
    ) -> Sent:
        """Make the object in one request. Raises Occupied."""
        if self._store.must_reserve():
            # Or the completion of another node's upload in parts could overwrite it.
            reserve(self._store, key, described, prefix=self._prefix)
        confirm_unchanged(job.fd, job.identity)
        self._store.put(key, body, described)
        progress(job.contents.size_bytes)
        return Sent(body.size_bytes, body.crc32, body.size_bytes)

    def _begin(self, job: PreparedJob, key: str, described: dict[str, str], journal: Journal) -> Unfinished:
        if self._store.must_reserve():
            reserve(self._store, key, described, prefix=self._prefix)
        upload_id = self._store.begin(key, described)
        part_bytes = job.sizes.packed if job.packed else job.sizes.large
        upload = Unfinished(job.identity, self._store.name, key, upload_id, part_bytes, job.contents.crc32)
        journal.note_unfinished(upload)
        return upload

    def _complete(
        self, job: PreparedJob, upload: Unfinished, parts: list[Part], crc32: int, *, replace: bool
    ) -> None:
        """Make the object of its parts, if nothing stands under the key by now. Raises Occupied, NoSuchUpload."""
        try:
            found = standing_of(self._store, upload.key, job, packed=job.packed, prefix=self._prefix)
            if found.standing not in (Standing.FREE, Standing.UNKNOWN, Standing.RESERVED_BY_US):
                raise Occupied(f"{upload.key} in {self._store.name} was taken meanwhile")
            self._store.complete(upload.key, upload.upload_id, parts, crc32=crc32, replace=replace)
        except Occupied:
            give_up(self._store, upload, prefix=self._prefix)
            raise

    def _pieces(self, job: PreparedJob, run: Run | None) -> Iterator[Piece]:
        """Give what the store does not hold yet, each made when it is asked for."""
        held = run.held if run else {}
        if not job.packed:
            part_bytes = run.upload.part_bytes if run else job.sizes.large
            block_bytes = self._store.limits.block_bytes
            return plain_pieces(job, part_bytes, held, block_bytes=block_bytes, stopped=self._stop.is_set)
        return packed_pieces(
            job.fd,
            job.fingerprint,
            run.upload.part_bytes if run else job.sizes.packed,
            number=len(held) + 1,
            after=run.upload.packed[len(held)] if run and held else None,
            block_bytes=self._block_bytes,
            stopped=self._stop.is_set,
        )
