"""Brings one dump into the store: never over another object, never twice, never half.

The order: fingerprint the file, find its key, send what the store does not hold yet, look at the result, and only
then give a receipt. Every step can be cut off; the next run begins at the first one and finds what is there.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from isal import isal_zlib

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.hprof import chunked
from dumpagent.kernel.cgroup import memory_limit_bytes
from dumpagent.model import DumpFile, Verdict
from dumpagent.settings import MIB, Place
from dumpagent.store.protocol import (
    Body,
    Limits,
    LookRefused,
    NoSuchUpload,
    Occupied,
    Part,
    Store,
    StoredObject,
)
from dumpagent.upload import label
from dumpagent.upload.fingerprint import (
    DumpChanged,
    FileSpan,
    Fingerprint,
    Stopped,
    confirm_unchanged,
    open_dump,
    read_span,
    take_fingerprint,
)
from dumpagent.upload.keys import candidates
from dumpagent.upload.ledger import Ledger, PackedPart, Receipt, Unfinished
from dumpagent.upload.names import original_name
from dumpagent.upload.pack import Cuts, Piece, can_pack, packed_pieces

# Measured against a 100 ms round trip at 0.2 CPU: larger parts gain nothing, smaller ones wait for answers.
PART_BYTES = 16 * MIB
_PARTS_EVERYWHERE = 1000
# Parts that are sent at once: two hide each other's wait for the answer. Far away, four do it better.
_WORKERS, _WORKERS_FAR, _FAR_S = 2, 4, 0.05
_SCANTY_BYTES = 160 * MIB  # below this memory limit two must do
_TAIL_BYTES = 512 << 10  # more than any last gzip member has
_SAVE_EVERY_S = 1.0


class NotAsSent(DumpagentError):
    """The store answered with success and holds something else."""


@dataclass(frozen=True, slots=True)
class Brought:
    """How a dump came to be in the store. `sent_bytes` is 0 if it was there already."""

    receipt: Receipt
    sent_bytes: int
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class Errand:
    """One dump that is to be brought, with all that is known of it before the store is asked."""

    dump: DumpFile
    verdict: Verdict

    @property
    def dump_time_ms(self) -> int:
        return label.dump_time_ms(self.dump, self.verdict.facts)

    @property
    def original(self) -> str:
        """Give the path that the JVM gave the dump, relative to the dump root."""
        directory, slash, name = self.dump.relpath.rpartition("/")
        return directory + slash + original_name(name, self.dump_time_ms)


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


def workers_for(round_trip_s: float, memory_bytes: int | None) -> int:
    """Say how many parts to send at once to a store that answers after `round_trip_s`."""
    if round_trip_s < _FAR_S or (memory_bytes is not None and memory_bytes < _SCANTY_BYTES):
        return _WORKERS
    return _WORKERS_FAR


@dataclass(frozen=True, slots=True)
class _Load:
    """One dump on its way: the open file, what is in it, and in which form it goes.

    `packed`: it goes as gzip. `packable`: it could, so the store may hold it in that form.
    """

    errand: Errand
    fd: int
    fingerprint: Fingerprint
    contents: label.Contents
    part_bytes: int
    packed: bool
    packable: bool


@dataclass(frozen=True, slots=True)
class _Sent:
    """An object as the store must hold it now, and what it took."""

    stored_bytes: int
    crc32: int
    sent_bytes: int
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A part that the store has, and the bytes of the dump that are in it."""

    part: Part
    start: int
    end: int


@dataclass(slots=True)
class _Run:
    """One multipart upload under way: what the store holds of it."""

    upload: Unfinished
    held: dict[int, Part] = field(default_factory=dict)
    sent_bytes: int = 0


class Sender:
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
        self._prefix = prefix
        self._packed = packed
        self._stop = stop or threading.Event()
        self._part_bytes = part_bytes
        self._block_bytes = block_bytes
        # Packed parts lie in memory while they are sent, so they are smaller.
        self._cuts = Cuts(max(part_bytes // 2, store.limits.part_min_bytes), store.limits)
        self._workers = workers
        self._round_trip_s = 0.0
        self._now = now
        self._monotonic = monotonic

    def bring(self, errand: Errand, *, progress: Progress = lambda _bytes: None) -> Brought:
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

    def foresee(self, errand: Errand) -> tuple[str, bool]:
        """Give the key that the dump would get, and whether it is there already. Asks the store, changes nothing."""
        fd = open_dump(errand.dump.path, errand.dump.identity)
        try:
            load = self._weigh(errand, fd)
            for key, twin in self._keys(load):
                if twin and self._is_whole(self._store.look(twin), load, packed=not load.packed):
                    return twin, True
                found = self._store.look(key)
                if found is None or _is_our_mark(found, load.contents):
                    return key, False
                if self._is_whole(found, load, packed=load.packed):
                    return key, True
        finally:
            os.close(fd)
        raise _all_taken(errand)

    def _weigh(self, errand: Errand, fd: int) -> _Load:
        """Read the whole dump once and give what there is to know before it goes."""
        size_bytes = errand.dump.size_bytes
        part_bytes = part_size(size_bytes, limits=self._store.limits, least_bytes=self._part_bytes)
        packable = can_pack(fd)
        fingerprint = take_fingerprint(
            fd, size_bytes, block_bytes=self._part_bytes, stopped=self._stop.is_set
        )
        return _Load(
            errand,
            fd,
            fingerprint,
            label.Contents(size_bytes, fingerprint.crc32),
            part_bytes,
            packed=self._packed and packable and size_bytes <= self._cuts.most_bytes,
            packable=packable,
        )

    # -- which key ----------------------------------------------------------------------------------------------

    def _keys(self, load: _Load) -> Iterator[tuple[str, str | None]]:
        """Give the keys that the dump may get, each with the one it would have in the other form, if there is one."""
        plain = self._candidates(load, load.errand.original)
        if not load.packable:
            return ((key, None) for key in plain)
        packed = self._candidates(load, f"{load.errand.original}.gz")
        return zip(packed, plain, strict=True) if load.packed else zip(plain, packed, strict=True)

    def _candidates(self, load: _Load, original: str) -> Iterable[str]:
        return candidates(
            prefix=self._prefix,
            original=original,
            dump_time_ms=load.errand.dump_time_ms,
            node=self._place.node_name,
            crc32=load.contents.crc32,
        )

    def _bring(self, load: _Load, progress: Progress) -> Brought:
        for key, twin in self._keys(load):
            if twin:
                found = self._look(twin)
                if found and _is_our_mark(found, load.contents):
                    self._store.delete(twin)  # COMPRESSION was changed in the middle of an upload
                elif found and self._is_whole(found, load, packed=not load.packed):
                    return self._already(load, twin, found)
            found = self._look(key)
            if found and _is_our_mark(found, load.contents):
                found = None  # our own mark: the upload goes on
            if found and label.holds(found.metadata, load.contents):
                if self._is_whole(found, load, packed=load.packed):
                    return self._already(load, key, found)
                # What an earlier run was told is stored, and is not: our own, and worth nothing to anybody.
                self._store.delete(key)
                found = None
            if found and self._is_foreign(key, load.contents):
                continue
            try:
                sent = self._send(load, key, progress)
            except Occupied:
                # Somebody was faster, or our own earlier request was carried out and its answer lost.
                found = self._look(key)
                if found and self._is_whole(found, load, packed=load.packed):
                    return self._already(load, key, found)
                continue
            except NoSuchUpload:
                # Completed by a request whose answer was lost, or aborted by somebody: the key tells which.
                self._ledger.forget_unfinished(load.errand.dump.identity)
                found = self._look(key)
                if found and self._is_whole(found, load, packed=load.packed):
                    return self._already(load, key, found)
                raise
            verified = self._confirm(key, load, sent)
            return self._receive(load, key, sent, verified=verified)
        raise _all_taken(load.errand)

    def _look(self, key: str) -> StoredObject | None:
        """Look at the key; where the store does not let us, the conditional write has to find out."""
        began = self._monotonic()
        try:
            return self._store.look(key)
        except LookRefused:
            return None
        finally:
            # The last one before the upload counts: by then the connection stands.
            self._round_trip_s = self._monotonic() - began

    def _is_foreign(self, key: str, contents: label.Contents) -> bool:
        """Look again before believing that another object has the key: an answer whose headers were cut off on the
        way says so too, and the dump would be stored twice. Raises Unreachable if the two answers differ.
        """
        again = self._look(key)
        if again is None or label.holds(again.metadata, contents):
            raise Unreachable(f"{self._store.name} gave two answers about {key}", hint="it is asked again")
        return True

    def _is_whole(self, found: StoredObject | None, load: _Load, *, packed: bool) -> bool:
        """Say whether an object is this dump from end to end. Raises as the store does, where it must be asked."""
        if found is None or found.reserved or not label.holds(found.metadata, load.contents):
            return False
        if not packed:
            return found.size_bytes == load.contents.size_bytes
        # How long it has to be is known to nobody, but it has to end with what the dump ends with.
        start = max(0, found.size_bytes - _TAIL_BYTES)
        if not found.size_bytes:
            return False
        tail = b"".join(self._store.read(found.key, start=start, length=found.size_bytes - start))
        content = chunked.last_member(tail)
        if not content or len(content) > load.contents.size_bytes:
            return False
        return content == read_span(load.fd, load.contents.size_bytes - len(content), len(content))

    def _already(self, load: _Load, key: str, found: StoredObject) -> Brought:
        there = _Sent(found.size_bytes, load.contents.crc32, sent_bytes=0)
        return self._receive(load, found.key or key, there, verified=True)

    def _receive(self, load: _Load, key: str, sent: _Sent, *, verified: bool) -> Brought:
        self._clear_key(key)
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

    def _confirm(self, key: str, load: _Load, sent: _Sent) -> bool:
        """Ask the store what it holds now; say whether it told. Raises NotAsSent if it holds something else."""
        try:
            found = self._store.look(key)
        except LookRefused:
            return False
        hint = "the dump stays here and is sent again; if this goes on, the store or a proxy before it changes what it is sent"
        if found is None:
            raise NotAsSent(
                f"{self._store.name} said that {key} is stored, and has no such object", hint=hint
            )
        if found.size_bytes != sent.stored_bytes:
            raise NotAsSent(
                f"{self._store.name} holds {found.size_bytes} bytes under {key}, sent were {sent.stored_bytes}",
                hint=hint,
            )
        if not label.holds(found.metadata, load.contents):
            raise NotAsSent(
                f"{self._store.name} holds {key} with other metadata than were sent: {found.metadata}",
                hint=hint,
            )
        if found.crc32 is not None and found.crc32 != sent.crc32:
            raise NotAsSent(
                f"{self._store.name} has CRC32 {found.crc32:08x} for {key}, what was sent has {sent.crc32:08x}",
                hint=hint,
            )
        return True

    def _clear_key(self, key: str) -> None:
        """Abort what is still open under a key that has its object.

        Whoever began it: completing it could only replace the object, or be refused. Whoever is at it goes on
        to the next key and loses nothing but bytes sent.
        """
        try:
            for left in self._store.open_uploads(key):
                if left.key == key:
                    self._store.abort(key, left.upload_id)
        except DumpagentError:
            return  # the dump is safe; a store that does not list uploads has a lifecycle rule for them

    # -- sending ------------------------------------------------------------------------------------------------

    def _send(self, load: _Load, key: str, progress: Progress) -> _Sent:
        """Make the object. Raises Occupied."""
        labels = label.describe(
            load.errand.dump,
            load.errand.verdict,
            load.contents,
            original=load.errand.original,
            place=self._place,
            now=self._now(),
        )
        upload = self._resumable(load, key)
        resumed = upload is not None
        held: dict[int, Part] = {}
        if upload:
            held = self._packed_parts(upload) if load.packed else self._matching_parts(upload, load)
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
                load.part_bytes,
                load.contents.crc32,
            )
            self._ledger.note_unfinished(upload)
        run = _Run(upload, held)
        progress(self._held_of_dump(load, run))
        self._send_all(load, run, pieces, progress)
        confirm_unchanged(load.fd, load.errand.dump.identity)
        parts = [part for _, part in sorted(run.held.items())]
        crc32 = _combined(parts) if load.packed else load.contents.crc32
        try:
            there = self._look(key)
            ours = there is not None and _is_our_mark(there, load.contents)
            if there and not ours:
                raise Occupied(f"{key} in {self._store.name} was taken meanwhile")
            self._store.complete(key, upload.upload_id, parts, crc32=crc32, over_reservation=ours)
        except Occupied:
            self._store.abort(key, upload.upload_id)
            self._ledger.forget_unfinished(load.errand.dump.identity)
            raise
        return _Sent(sum(part.size_bytes for part in parts), crc32, run.sent_bytes, resumed)

    def _put(self, load: _Load, key: str, labels: dict[str, str], piece: Piece, progress: Progress) -> _Sent:
        confirm_unchanged(load.fd, load.errand.dump.identity)
        self._store.put(key, piece.body, labels)
        progress(piece.end)
        return _Sent(piece.body.size_bytes, piece.body.crc32, piece.body.size_bytes)

    def _pieces(self, load: _Load, upload: Unfinished | None, held: dict[int, Part]) -> Iterator[Piece]:
        """Give what the store does not hold yet, each made when it is asked for."""
        if not load.packed:
            return self._plain_pieces(load, upload.part_bytes if upload else load.part_bytes, held)
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

    def _plain_pieces(self, load: _Load, part_bytes: int, held: dict[int, Part]) -> Iterator[Piece]:
        size_bytes = load.contents.size_bytes
        for number, start in enumerate(range(0, size_bytes, part_bytes), start=1):
            if number not in held:
                length = min(part_bytes, size_bytes - start)
                crc32 = load.fingerprint.crc32_of(start, length)
                yield Piece(
                    number, Body(FileSpan(load.fd, start, length, crc32), crc32), start, start + length
                )

    def _send_all(self, load: _Load, run: _Run, pieces: Iterator[Piece], progress: Progress) -> None:
        """Send the pieces, several at once, and make the next one meanwhile; `run` tells what has arrived."""
        upload, saved_at = run.upload, self._monotonic()
        workers = self._workers or workers_for(self._round_trip_s, memory_limit_bytes())

        def send(piece: Piece) -> _Arrived:
            part = self._store.send_part(upload.key, upload.upload_id, piece.number, piece.body)
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
                        self._note(load, run, arrived)
                        progress(arrived.end - arrived.start)
                    if self._stop.is_set():
                        raise Stopped
                    confirm_unchanged(load.fd, load.errand.dump.identity)
                    if self._monotonic() - saved_at >= _SAVE_EVERY_S:
                        saved_at = self._monotonic()
                        self._ledger.note_unfinished(run.upload)
            except DumpChanged:
                self._ledger.forget_unfinished(load.errand.dump.identity)
                for future in under_way:
                    future.cancel()
                wait(under_way)
                self._store.abort(upload.key, upload.upload_id)
                self._release(upload)
                raise
            except BaseException:
                self._ledger.note_unfinished(run.upload)
                raise

    def _note(self, load: _Load, run: _Run, arrived: _Arrived) -> None:
        part = arrived.part
        run.held[part.number] = part
        run.sent_bytes += part.size_bytes
        if load.packed:
            noted = PackedPart(part.etag, part.size_bytes, part.crc32 or 0, arrived.end)
            run.upload = replace(run.upload, packed={**run.upload.packed, part.number: noted})
        else:
            run.upload = replace(run.upload, etags={**run.upload.etags, part.number: part.etag})

    # -- going on -----------------------------------------------------------------------------------------------

    def _resumable(self, load: _Load, key: str) -> Unfinished | None:
        """Give the upload of this dump to this key that can go on: the remembered one, or one that holds our bytes."""
        identity = load.errand.dump.identity
        known = self._ledger.unfinished(identity)
        if known:
            same = known.crc32 == load.contents.crc32 and known.part_bytes == load.part_bytes
            if known.key == key and same:
                try:
                    self._store.parts(key, known.upload_id)
                except NoSuchUpload:
                    self._ledger.forget_unfinished(identity)
                else:
                    return known
            else:
                self._store.abort(known.key, known.upload_id)
                self._release(known)
                self._ledger.forget_unfinished(identity)
        if load.packed or load.contents.size_bytes <= load.part_bytes:
            return (
                None  # compressed parts do not tell which bytes of the dump they are: that upload begins anew
            )
        return self._adopt(load, key)

    def _adopt(self, load: _Load, key: str) -> Unfinished | None:
        """Give an open upload under `key` all of whose parts are spans of this very dump, if the state was lost."""
        try:
            left_open = [left for left in self._store.open_uploads(key) if left.key == key]
        except Refused:
            return None  # not allowed to list: we begin anew
        for left in left_open:
            upload = Unfinished(
                load.errand.dump.identity,
                self._store.name,
                key,
                left.upload_id,
                load.part_bytes,
                load.contents.crc32,
            )
            try:
                stored = self._store.parts(key, left.upload_id)
            except NoSuchUpload:
                continue
            if stored and len(self._matching_parts(upload, load, stored)) == len(stored):
                self._ledger.note_unfinished(upload)
                return upload
        return None

    def _matching_parts(
        self, upload: Unfinished, load: _Load, stored: list[Part] | None = None
    ) -> dict[int, Part]:
        """Give the parts in the store that hold this dump's bytes: by the remembered ETag, the CRC32, or the MD5."""
        held = {}
        for part in self._store.parts(upload.key, upload.upload_id) if stored is None else stored:
            start = (part.number - 1) * upload.part_bytes
            length = min(upload.part_bytes, load.contents.size_bytes - start)
            if length <= 0 or part.size_bytes != length:
                continue
            crc32 = load.fingerprint.crc32_of(start, length)
            remembered = upload.etags.get(part.number)
            if (
                remembered == part.etag
                or part.crc32 == crc32
                or (remembered is None and part.etag == _md5_of(load.fd, start, length))
            ):
                held[part.number] = replace(part, crc32=crc32)
        return held

    def _packed_parts(self, upload: Unfinished) -> dict[int, Part]:
        """Give the parts that the store holds as they were noted, from the first up to the first that is missing."""
        stored = {part.number: part for part in self._store.parts(upload.key, upload.upload_id)}
        held: dict[int, Part] = {}
        for number, noted in sorted(upload.packed.items()):
            found = stored.get(number)
            if (
                number != len(held) + 1
                or found is None
                or (found.etag, found.size_bytes) != (noted.etag, noted.size_bytes)
            ):
                break
            held[number] = replace(found, crc32=noted.crc32)
        return held

    def _release(self, upload: Unfinished) -> None:
        """Take our mark from a key whose upload was given up."""
        there = self._look(upload.key)
        contents = label.Contents(upload.identity.size_bytes, upload.crc32)
        if there and _is_our_mark(there, contents):
            self._store.delete(upload.key)

    def _held_of_dump(self, load: _Load, run: _Run) -> int:
        if load.packed:
            return run.upload.packed[len(run.held)].end if run.held else 0
        return sum(part.size_bytes for part in run.held.values())


def _is_our_mark(found: StoredObject, contents: label.Contents) -> bool:
    """Say whether the key is only reserved, by an upload of this very dump."""
    return found.reserved and label.holds(found.metadata, contents)


def _nothing() -> Piece:
    return Piece(1, Body(b"", 0), 0, 0)


def _combined(parts: list[Part]) -> int:
    """Give the CRC32 of the object that these parts make."""
    crc32 = 0
    for part in parts:
        crc32 = isal_zlib.crc32_combine(crc32, part.crc32 or 0, part.size_bytes)
    return crc32


def _md5_of(fd: int, start: int, length: int) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    for at in range(start, start + length, MIB):
        md5.update(read_span(fd, at, min(MIB, start + length - at)))
    return md5.hexdigest()


def _all_taken(errand: Errand) -> Refused:
    return Refused(
        f"every key for {errand.original} is taken by other objects",
        hint="nothing was overwritten; set S3_PREFIX to one of your own, or look who else writes to this bucket",
    )
