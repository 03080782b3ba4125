"""Brings one dump into the store: never over another object, never twice, never half.

The order: fingerprint the file, find its key, send what the store does not hold yet, look at the result, and only
then give a receipt. Every step can be cut off; the next run begins at the first one and finds what is there.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from dumpagent.errors import DumpagentError, Refused, Unreachable
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
    checked,
    confirm_unchanged,
    open_dump,
    read_span,
    take_fingerprint,
)
from dumpagent.upload.keys import candidates
from dumpagent.upload.ledger import Ledger, Receipt, Unfinished
from dumpagent.upload.names import original_name

IN_MEMORY_BYTES = 32 * MIB  # larger parts (dumps beyond 31 GiB) are read while they are sent
# Measured against a 100 ms round trip at 0.2 CPU: 2 x 16 MiB is the fastest that fits a 256 MiB limit.
PART_BYTES = 16 * MIB
_PARTS_EVERYWHERE = 1000
WORKERS = 2
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


class Sender:
    """Brings dumps into `store`, one call of `bring` at a time; parts go out on `workers` threads."""

    def __init__(
        self,
        store: Store,
        ledger: Ledger,
        place: Place,
        *,
        prefix: str = "",
        stop: threading.Event | None = None,
        part_bytes: int = PART_BYTES,
        workers: int = WORKERS,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._place = place
        self._prefix = prefix
        self._stop = stop or threading.Event()
        self._part_bytes = part_bytes
        self._workers = workers
        self._now = now
        self._monotonic = monotonic

    def bring(self, errand: Errand, *, progress: Progress = lambda _bytes: None) -> Brought:
        """Give the receipt of the dump once the store holds it, whoever put it there.

        Raises DumpChanged if the file is not what was judged, Refused, Unreachable or NotAsSent by the store, OSError
        by the volume, Stopped if the agent ends. After each the dump is to be brought again; nothing is half-stored.
        """
        size_bytes = errand.dump.size_bytes
        part_bytes = part_size(size_bytes, limits=self._store.limits, least_bytes=self._part_bytes)
        fd = open_dump(errand.dump.path, errand.dump.identity)
        try:
            fingerprint = take_fingerprint(
                fd, size_bytes, block_bytes=self._part_bytes, stopped=self._stop.is_set
            )
            confirm_unchanged(fd, errand.dump.identity)
            contents = label.Contents(size_bytes, fingerprint.crc32)
            return self._bring(errand, fd, fingerprint, contents, part_bytes, progress)
        finally:
            os.close(fd)

    def foresee(self, errand: Errand) -> tuple[str, bool]:
        """Give the key that the dump would get, and whether it is there already. Asks the store, changes nothing."""
        fd = open_dump(errand.dump.path, errand.dump.identity)
        try:
            size_bytes = errand.dump.size_bytes
            crc32 = take_fingerprint(
                fd, size_bytes, block_bytes=self._part_bytes, stopped=self._stop.is_set
            ).crc32
        finally:
            os.close(fd)
        contents = label.Contents(size_bytes, crc32)
        for key in self._keys(errand, crc32):
            found = self._store.look(key)
            if found is None or _is_whole(found, contents):
                return key, found is not None
            if found.reserved and label.holds(found.metadata, contents):
                return key, False
        raise _all_taken(errand)

    def _keys(self, errand: Errand, crc32: int) -> Iterable[str]:
        return candidates(
            prefix=self._prefix,
            original=errand.original,
            dump_time_ms=errand.dump_time_ms,
            node=self._place.node_name,
            crc32=crc32,
        )

    # -- which key ----------------------------------------------------------------------------------------------

    def _bring(
        self,
        errand: Errand,
        fd: int,
        fingerprint: Fingerprint,
        contents: label.Contents,
        part_bytes: int,
        progress: Progress,
    ) -> Brought:
        for key in self._keys(errand, contents.crc32):
            found = self._look(key)
            if found and found.reserved and label.holds(found.metadata, contents):
                found = None  # our own mark: the upload goes on
            if found and label.holds(found.metadata, contents):
                if found.size_bytes == contents.size_bytes:
                    return self._already(errand, key, found, contents)
                # What an earlier run was told is stored, and is not: our own, and worth nothing to anybody.
                self._store.delete(key)
                found = None
            if found and self._is_foreign(key, contents):
                continue
            try:
                sent_bytes, resumed = self._send(errand, fd, fingerprint, contents, part_bytes, key, progress)
            except Occupied:
                # Somebody was faster, or our own earlier request was carried out and its answer lost.
                found = self._look(key)
                if found and _is_whole(found, contents):
                    return self._already(errand, key, found, contents)
                continue
            except NoSuchUpload:
                # Completed by a request whose answer was lost, or aborted by somebody: the key tells which.
                self._ledger.forget_unfinished(errand.dump.identity)
                found = self._look(key)
                if found and _is_whole(found, contents):
                    return self._already(errand, key, found, contents)
                raise
            verified = self._confirm(key, contents)
            return self._receive(
                errand, key, contents, sent_bytes=sent_bytes, verified=verified, resumed=resumed
            )
        raise _all_taken(errand)

    def _look(self, key: str) -> StoredObject | None:
        """Look at the key; where the store does not let us, the conditional write has to find out."""
        try:
            return self._store.look(key)
        except LookRefused:
            return None

    def _is_foreign(self, key: str, contents: label.Contents) -> bool:
        """Look again before believing that another object has the key: an answer whose headers were cut off on the
        way says so too, and the dump would be stored twice. Raises Unreachable if the two answers differ.
        """
        again = self._look(key)
        if again is None or label.holds(again.metadata, contents):
            raise Unreachable(f"{self._store.name} gave two answers about {key}", hint="it is asked again")
        return True

    def _already(self, errand: Errand, key: str, found: StoredObject, contents: label.Contents) -> Brought:
        return self._receive(errand, found.key or key, contents, sent_bytes=0, verified=True, resumed=False)

    def _receive(
        self,
        errand: Errand,
        key: str,
        contents: label.Contents,
        *,
        sent_bytes: int,
        verified: bool,
        resumed: bool,
    ) -> Brought:
        self._clear_key(key)
        receipt = Receipt(
            identity=errand.dump.identity,
            path=errand.original,
            store=self._store.name,
            key=key,
            crc32=contents.crc32,
            stored_bytes=contents.size_bytes,
            uploaded_at=self._now(),
            verified=verified,
        )
        self._ledger.record(receipt)
        return Brought(receipt, sent_bytes, resumed)

    def _confirm(self, key: str, contents: label.Contents) -> bool:
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
        if found.size_bytes != contents.size_bytes:
            raise NotAsSent(
                f"{self._store.name} holds {found.size_bytes} bytes under {key}, sent were {contents.size_bytes}",
                hint=hint,
            )
        if not label.holds(found.metadata, contents):
            raise NotAsSent(
                f"{self._store.name} holds {key} with other metadata than were sent: {found.metadata}",
                hint=hint,
            )
        if found.crc32 is not None and found.crc32 != contents.crc32:
            raise NotAsSent(
                f"{self._store.name} has CRC32 {found.crc32:08x} for {key}, the dump has {contents.crc32:08x}",
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

    def _send(
        self,
        errand: Errand,
        fd: int,
        fingerprint: Fingerprint,
        contents: label.Contents,
        part_bytes: int,
        key: str,
        progress: Progress,
    ) -> tuple[int, bool]:
        """Make the object; give the bytes sent and whether an earlier upload went on. Raises Occupied."""
        labels = label.describe(
            errand.dump,
            errand.verdict,
            contents,
            original=errand.original,
            place=self._place,
            now=self._now(),
        )
        if contents.size_bytes <= part_bytes:
            body = _body(fd, 0, contents.size_bytes, fingerprint.crc32)
            confirm_unchanged(fd, errand.dump.identity)
            self._store.put(key, body, labels)
            progress(contents.size_bytes)
            return contents.size_bytes, False
        upload = self._resumable(errand, fd, fingerprint, contents, part_bytes, key)
        resumed = upload is not None
        if upload is None:
            upload_id = self._store.begin(key, labels)
            upload = Unfinished(
                errand.dump.identity, self._store.name, key, upload_id, part_bytes, contents.crc32
            )
            self._ledger.note_unfinished(upload)
            held: dict[int, Part] = {}
        else:
            held = self._matching_parts(upload, fd, fingerprint)
        progress(sum(part.size_bytes for part in held.values()))
        sent_bytes = self._send_missing(errand, upload, held, fd, fingerprint, progress)
        confirm_unchanged(fd, errand.dump.identity)
        try:
            there = self._look(key)
            ours = there is not None and there.reserved and label.holds(there.metadata, contents)
            if there and not ours:
                raise Occupied(f"{key} in {self._store.name} was taken meanwhile")
            parts = [part for _, part in sorted(held.items())]
            self._store.complete(key, upload.upload_id, parts, crc32=contents.crc32, over_reservation=ours)
        except Occupied:
            self._store.abort(key, upload.upload_id)
            self._ledger.forget_unfinished(errand.dump.identity)
            raise
        return sent_bytes, resumed

    def _resumable(
        self,
        errand: Errand,
        fd: int,
        fingerprint: Fingerprint,
        contents: label.Contents,
        part_bytes: int,
        key: str,
    ) -> Unfinished | None:
        """Give the upload of this dump to this key that can go on: the remembered one, or one that holds our bytes."""
        known = self._ledger.unfinished(errand.dump.identity)
        if known:
            if known.key == key and known.crc32 == contents.crc32 and known.part_bytes == part_bytes:
                try:
                    self._store.parts(key, known.upload_id)
                except NoSuchUpload:
                    self._ledger.forget_unfinished(errand.dump.identity)
                else:
                    return known
            else:
                self._store.abort(known.key, known.upload_id)
                self._ledger.forget_unfinished(errand.dump.identity)
        return self._adopt(errand, fd, fingerprint, contents, part_bytes, key)

    def _adopt(
        self,
        errand: Errand,
        fd: int,
        fingerprint: Fingerprint,
        contents: label.Contents,
        part_bytes: int,
        key: str,
    ) -> Unfinished | None:
        """Give an open upload under `key` all of whose parts are spans of this very dump, if the state was lost."""
        try:
            left_open = [left for left in self._store.open_uploads(key) if left.key == key]
        except Refused:
            return None  # not allowed to list: we begin anew
        for left in left_open:
            upload = Unfinished(
                errand.dump.identity, self._store.name, key, left.upload_id, part_bytes, contents.crc32
            )
            try:
                stored = self._store.parts(key, left.upload_id)
            except NoSuchUpload:
                continue
            if stored and len(self._matching_parts(upload, fd, fingerprint, stored)) == len(stored):
                self._ledger.note_unfinished(upload)
                return upload
        return None

    def _matching_parts(
        self, upload: Unfinished, fd: int, fingerprint: Fingerprint, stored: list[Part] | None = None
    ) -> dict[int, Part]:
        """Give the parts in the store that hold this dump's bytes: by the remembered ETag, the CRC32, or the MD5."""
        held = {}
        for part in self._store.parts(upload.key, upload.upload_id) if stored is None else stored:
            start = (part.number - 1) * upload.part_bytes
            length = min(upload.part_bytes, fingerprint.size_bytes - start)
            if length <= 0 or part.size_bytes != length:
                continue
            crc32 = fingerprint.crc32_of(start, length)
            remembered = upload.etags.get(part.number)
            if (
                remembered == part.etag
                or part.crc32 == crc32
                or (remembered is None and part.etag == _md5_of(fd, start, length))
            ):
                held[part.number] = replace(part, crc32=crc32)
        return held

    def _send_missing(
        self,
        errand: Errand,
        upload: Unfinished,
        held: dict[int, Part],
        fd: int,
        fingerprint: Fingerprint,
        progress: Progress,
    ) -> int:
        """Send every part that is not in `held`, and add it there. Gives the bytes sent."""
        count = -(-fingerprint.size_bytes // upload.part_bytes)
        missing = iter([number for number in range(1, count + 1) if number not in held])
        saved_at, sent_bytes = self._monotonic(), 0

        def send(number: int) -> Part:
            start = (number - 1) * upload.part_bytes
            length = min(upload.part_bytes, fingerprint.size_bytes - start)
            body = _body(fd, start, length, fingerprint.crc32_of(start, length))
            return self._store.send_part(upload.key, upload.upload_id, number, body)

        with ThreadPoolExecutor(self._workers, thread_name_prefix="part") as pool:
            under_way: set[Future[Part]] = set()
            try:
                while True:
                    while len(under_way) < self._workers and (number := next(missing, None)) is not None:
                        under_way.add(pool.submit(send, number))
                    if not under_way:
                        return sent_bytes
                    done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                    for future in done:
                        part = future.result()
                        held[part.number] = part
                        sent_bytes += part.size_bytes
                        progress(part.size_bytes)
                    if self._stop.is_set():
                        raise Stopped
                    confirm_unchanged(fd, errand.dump.identity)
                    if self._monotonic() - saved_at >= _SAVE_EVERY_S:
                        saved_at = self._monotonic()
                        self._save(upload, held)
            except DumpChanged:
                self._ledger.forget_unfinished(errand.dump.identity)
                for future in under_way:
                    future.cancel()
                wait(under_way)
                self._store.abort(upload.key, upload.upload_id)
                self._release(upload)
                raise
            except BaseException:
                self._save(upload, held)
                raise

    def _release(self, upload: Unfinished) -> None:
        """Take our mark from a key whose upload was given up."""
        there = self._look(upload.key)
        contents = label.Contents(upload.identity.size_bytes, upload.crc32)
        if there and there.reserved and label.holds(there.metadata, contents):
            self._store.delete(upload.key)

    def _save(self, upload: Unfinished, held: dict[int, Part]) -> None:
        self._ledger.note_unfinished(
            replace(upload, etags={number: part.etag for number, part in held.items()})
        )


def _body(fd: int, start: int, length: int, crc32: int) -> Body:
    """Give the bytes of a span, read into memory or, if they are many, while they are sent.

    Raises DumpChanged, now or while they are sent, if they are not those of the fingerprint.
    """
    if length > IN_MEMORY_BYTES:
        return Body(FileSpan(fd, start, length, crc32), crc32)
    return Body(checked(read_span(fd, start, length), crc32), crc32)


def _is_whole(found: StoredObject, contents: label.Contents) -> bool:
    return label.holds(found.metadata, contents) and found.size_bytes == contents.size_bytes


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
