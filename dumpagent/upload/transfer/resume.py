"""Finds the multipart upload that a dump can go on with, and what the store holds of it already."""

from __future__ import annotations

from dataclasses import replace

from dumpagent.errors import Refused
from dumpagent.settings import MIB
from dumpagent.store.md5 import md5_of
from dumpagent.store.protocol import NoSuchUpload, Part, Store
from dumpagent.upload.ledger import Ledger, Unfinished
from dumpagent.upload.transfer.fingerprint import read_span
from dumpagent.upload.transfer.job import PreparedJob
from dumpagent.upload.transfer.leftovers import Leftovers


class Resume:
    """Looks in the ledger first, and where that is lost, among the open uploads of the store."""

    def __init__(self, store: Store, ledger: Ledger, leftovers: Leftovers) -> None:
        self._store = store
        self._ledger = ledger
        self._leftovers = leftovers

    def find(self, load: PreparedJob, key: str) -> Unfinished | None:
        """Give the upload of this dump to this key that can go on: the remembered one, or one that holds our bytes.

        One that was cut off before any part arrived goes on with smaller parts: on a line that breaks often, those
        arrive.
        """
        identity = load.errand.dump.identity
        known = self._ledger.unfinished(identity)
        if known:
            same = known.crc32 == load.contents.crc32 and _fits(known.part_bytes, load)
            if known.key == key and same:
                try:
                    stored = self._store.parts(key, known.upload_id)
                except NoSuchUpload:
                    self._ledger.forget_unfinished(identity)
                else:
                    return known if stored else replace(known, part_bytes=load.part_bytes)
            else:
                self._leftovers.give_up(known)
                self._ledger.forget_unfinished(identity)
        if load.packed or load.contents.size_bytes <= load.part_bytes:
            return (
                None  # compressed parts do not tell which bytes of the dump they are: that upload begins anew
            )
        return self._adopt(load, key)

    def held(self, load: PreparedJob, upload: Unfinished) -> dict[int, Part]:
        """Give the parts of `upload` that the store holds as this dump needs them, by number."""
        return self._packed(upload) if load.packed else self._matching(upload, load)

    def _adopt(self, load: PreparedJob, key: str) -> Unfinished | None:
        """Give an open upload under `key` all of whose parts are spans of this very dump, if the state was lost."""
        try:
            left_open = [left for left in self._store.open_uploads(key) if left.key == key]
        except Refused:
            return None  # not allowed to list: we begin anew
        for left in left_open:
            try:
                stored = self._store.parts(key, left.upload_id)
            except NoSuchUpload:
                continue
            part_bytes = max((part.size_bytes for part in stored), default=0)  # all but the last have it
            if not _fits(part_bytes, load):
                continue
            upload = Unfinished(
                load.errand.dump.identity,
                self._store.name,
                key,
                left.upload_id,
                part_bytes,
                load.contents.crc32,
            )
            if len(self._matching(upload, load, stored)) == len(stored):
                self._ledger.note_unfinished(upload)
                return upload
        return None

    def _matching(
        self, upload: Unfinished, load: PreparedJob, stored: list[Part] | None = None
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

    def _packed(self, upload: Unfinished) -> dict[int, Part]:
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


def _fits(part_bytes: int, load: PreparedJob) -> bool:
    """Say whether the dump can go on in parts of that size, whichever version of the agent chose it."""
    return part_bytes >= load.part_bytes and part_bytes % load.fingerprint.block_bytes == 0


def _md5_of(fd: int, start: int, length: int) -> str | None:
    """Give the MD5 of a part in hex, None where the machine has none (FIPS): then the part is sent again."""
    starts = range(start, start + length, MIB)
    md5 = md5_of(read_span(fd, at, min(MIB, start + length - at)) for at in starts)
    return md5.hex() if md5 is not None else None
