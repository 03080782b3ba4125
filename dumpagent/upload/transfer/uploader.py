"""Brings one dump into the store: never over another object, never twice, never half.

The order: fingerprint the file, find its key, send what the store does not hold yet, look at the result, and only
then give a receipt. Every step can be cut off; the next run begins at the first one and finds what is there.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dumpagent.hprof import chunked
from dumpagent.settings import Place
from dumpagent.store.protocol import Body, NoSuchUpload, Occupied, Part, Store, StoredObject
from dumpagent.upload.ledger import Ledger, Receipt, Unfinished
from dumpagent.upload.transfer import metadata
from dumpagent.upload.transfer.confirm import Sent, confirm
from dumpagent.upload.transfer.fingerprint import confirm_unchanged, open_dump
from dumpagent.upload.transfer.gzip_parts import Cuts, Piece, packed_pieces
from dumpagent.upload.transfer.job import Job, PreparedJob, prepare
from dumpagent.upload.transfer.leftovers import Leftovers
from dumpagent.upload.transfer.multipart import (
    PART_BYTES,
    PartSender,
    Progress,
    Run,
    combined,
    large_part_size,
    part_size,
    plain_pieces,
)
from dumpagent.upload.transfer.resume import Resume
from dumpagent.upload.transfer.standing import Lookup, all_taken, is_our_mark


@dataclass(frozen=True, slots=True)
class Brought:
    """How a dump came to be in the store. `sent_bytes` is 0 if it was there already."""

    receipt: Receipt
    sent_bytes: int
    resumed: bool = False


class Uploader:
    """Brings dumps into `store`, one call of `bring` at a time; parts go out on threads.

    `packed`: plain dumps become .hprof.gz on their way. `workers`: threads, by the round trip if not given.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        place: Place,
        *,
        prefix: str = "",
        packed: bool = False,
        stop: threading.Event | None = None,
        part_bytes: int = PART_BYTES,
        block_bytes: int = chunked.BLOCK_BYTES,
        workers: int | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._place = place
        self._packed = packed
        self._stop = stop or threading.Event()
        self._part_bytes = part_bytes
        self._block_bytes = block_bytes
        # Packed parts lie in memory while they are sent, so they are smaller.
        self._cuts = Cuts(max(part_bytes // 2, store.limits.part_min_bytes), store.limits)
        self._now = now
        self._lookup = Lookup(store, prefix=prefix, node=place.node_name, monotonic=monotonic)
        self._leftovers = Leftovers(store, self._lookup)
        self._resume = Resume(store, ledger, self._leftovers)
        self._parts = PartSender(store, ledger, self._leftovers, stop=self._stop, workers=workers)

    def bring(self, errand: Job, *, progress: Progress = lambda _bytes: None) -> Brought:
        """Give the receipt of the dump once the store holds it, whoever put it there.

        Raises DumpChanged if the file is not what was judged, Refused, Unreachable or NotAsSent by the store, OSError
        by the volume, Stopped if the agent ends. After each the dump is to be brought again; nothing is half-stored.
        """
        fd = open_dump(errand.dump.path, errand.dump.identity)
        try:
            load = self._weigh(errand, fd)
            confirm_unchanged(fd, errand.dump.identity)
            return self._bring(load, progress)
        finally:
            os.close(fd)

    def foresee(self, errand: Job) -> tuple[str, bool]:
        """Give the key that the dump would get, and whether it is there already. Asks the store, changes nothing."""
        fd = open_dump(errand.dump.path, errand.dump.identity)
        try:
            load = self._weigh(errand, fd)
            for key, twin in self._lookup.keys(load):
                if twin and self._lookup.is_whole(self._store.look(twin), load, packed=not load.packed):
                    return twin, True
                found = self._store.look(key)
                if found is None or is_our_mark(found, load.contents):
                    return key, False
                if self._lookup.is_whole(found, load, packed=load.packed):
                    return key, True
        finally:
            os.close(fd)
        raise all_taken(errand)

    def _weigh(self, errand: Job, fd: int) -> PreparedJob:
        size_bytes, least_bytes = errand.dump.size_bytes, self._part_bytes
        part_bytes = part_size(size_bytes, limits=self._store.limits, least_bytes=least_bytes)
        return prepare(
            errand,
            fd,
            part_bytes=part_bytes,
            large_part_bytes=large_part_size(size_bytes, part_bytes, least_bytes=least_bytes),
            block_bytes=self._part_bytes,
            packed_most_bytes=self._cuts.most_bytes if self._packed else -1,
            stopped=self._stop.is_set,
        )

    # -- the order of things ------------------------------------------------------------------------------------

    def _bring(self, load: PreparedJob, progress: Progress) -> Brought:
        lookup = self._lookup
        for key, twin in lookup.keys(load):
            if twin:
                found = lookup.look(twin)
                if found and is_our_mark(found, load.contents):
                    self._store.delete(twin)  # COMPRESSION was changed in the middle of an upload
                elif found and lookup.is_whole(found, load, packed=not load.packed):
                    return self._already(load, twin, found)
            found = lookup.look(key)
            if found and is_our_mark(found, load.contents):
                found = None  # our own mark: the upload goes on
            if found and metadata.holds(found.metadata, load.contents):
                if lookup.is_whole(found, load, packed=load.packed):
                    return self._already(load, key, found)
                # What an earlier run was told is stored, and is not: our own, and worth nothing to anybody.
                self._store.delete(key)
                found = None
            if found and lookup.is_foreign(key, load.contents):
                continue
            try:
                sent = self._send(load, key, progress)
            except Occupied:
                # Somebody was faster, or our own earlier request was carried out and its answer lost.
                found = lookup.look(key)
                if found and lookup.is_whole(found, load, packed=load.packed):
                    return self._already(load, key, found)
                continue
            except NoSuchUpload:
                # Completed by a request whose answer was lost, or aborted by somebody: the key tells which.
                self._ledger.forget_unfinished(load.errand.dump.identity)
                found = lookup.look(key)
                if found and lookup.is_whole(found, load, packed=load.packed):
                    return self._already(load, key, found)
                raise
            verified = confirm(self._store, key, load.contents, sent)
            return self._receive(load, key, sent, verified=verified)
        raise all_taken(load.errand)

    def _already(self, load: PreparedJob, key: str, found: StoredObject) -> Brought:
        there = Sent(found.size_bytes, load.contents.crc32, sent_bytes=0)
        return self._receive(load, found.key or key, there, verified=True)

    def _receive(self, load: PreparedJob, key: str, sent: Sent, *, verified: bool) -> Brought:
        noted = self._ledger.unfinished(load.errand.dump.identity)
        if noted and noted.upload_id != sent.upload_id:
            self._leftovers.give_up(noted)
        receipt = Receipt(
            identity=load.errand.dump.identity,
            path=load.errand.original,
            store=self._store.name,
            key=key,
            crc32=load.contents.crc32,
            stored_bytes=sent.stored_bytes,
            uploaded_at=self._now(),
            verified=verified,
        )
        self._ledger.record(receipt)
        return Brought(receipt, sent.sent_bytes, sent.resumed)

    # -- making the object --------------------------------------------------------------------------------------

    def _send(self, load: PreparedJob, key: str, progress: Progress) -> Sent:
        """Make the object. Raises Occupied."""
        labels = metadata.describe(
            load.errand.dump,
            load.errand.verdict,
            load.contents,
            original=load.errand.original,
            place=self._place,
            now=self._now(),
        )
        upload = self._resume.find(load, key)
        resumed = upload is not None
        held = self._resume.held(load, upload) if upload else {}
        pieces = self._pieces(load, upload, held)
        if upload is None:
            first = next(pieces, None)
            if first is None or first.end == load.contents.size_bytes:
                return self._put(load, key, labels, first or _nothing(), progress)
            pieces = itertools.chain([first], pieces)
            upload = Unfinished(
                load.errand.dump.identity,
                self._store.name,
                key,
                self._store.begin(key, labels),
                load.large_part_bytes,
                load.contents.crc32,
            )
            self._ledger.note_unfinished(upload)
        run = Run(upload, held)
        progress(run.bytes_of_dump(packed=load.packed))
        self._parts.send(load, run, pieces, progress, round_trip_s=self._lookup.round_trip_s)
        confirm_unchanged(load.fd, load.errand.dump.identity)
        parts = [part for _, part in sorted(run.held.items())]
        crc32 = combined(parts) if load.packed else load.contents.crc32
        try:
            there = self._lookup.look(key)
            ours = there is not None and is_our_mark(there, load.contents)
            if there and not ours:
                raise Occupied(f"{key} in {self._store.name} was taken meanwhile")
            self._store.complete(key, upload.upload_id, parts, crc32=crc32, over_reservation=ours)
        except Occupied:
            self._store.abort(key, upload.upload_id)
            self._ledger.forget_unfinished(load.errand.dump.identity)
            raise
        return Sent(sum(part.size_bytes for part in parts), crc32, run.sent_bytes, resumed, upload.upload_id)

    def _put(
        self, load: PreparedJob, key: str, labels: dict[str, str], piece: Piece, progress: Progress
    ) -> Sent:
        confirm_unchanged(load.fd, load.errand.dump.identity)
        self._store.put(key, piece.body, labels)
        progress(piece.end)
        return Sent(piece.body.size_bytes, piece.body.crc32, piece.body.size_bytes)

    def _pieces(self, load: PreparedJob, upload: Unfinished | None, held: dict[int, Part]) -> Iterator[Piece]:
        """Give what the store does not hold yet, each made when it is asked for."""
        if not load.packed:
            part_bytes = upload.part_bytes if upload else load.large_part_bytes
            block_bytes = self._store.limits.block_bytes
            return plain_pieces(load, part_bytes, held, block_bytes=block_bytes, stopped=self._stop.is_set)
        last = upload.packed[len(held)] if upload and held else None
        return packed_pieces(
            load.fd,
            load.fingerprint,
            self._cuts,
            number=len(held) + 1,
            start=last.end if last else 0,
            block_bytes=self._block_bytes,
            stopped=self._stop.is_set,
        )


def _nothing() -> Piece:
    return Piece(1, Body(b"", 0), 0, 0)
