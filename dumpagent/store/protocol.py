"""The object store as the agent needs it: a few calls, frozen answers, two kinds of error.

Every store raises `Refused` when it understood and said no, `Unreachable` when it gave no usable answer (after the
store's own short retries), and nothing else. A call that was refused changed nothing in the store; one that got no
answer may have been carried out all the same, so callers look before they try again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dumpagent.errors import Refused
from dumpagent.part_sizes import Limits
from dumpagent.store.md5 import md5_of

TLS_BLOCK_BYTES = 512 << 10


class Occupied(Refused):
    """A conditional write found an object under the key. It was not touched."""


class NoSuchUpload(Refused):
    """The multipart upload is not open: completed, aborted, or never there."""


class LookRefused(Refused):
    """The store does not tell whether the key is there: the credentials may write, but not look."""


class Replaced(Refused):
    """The object under the key is not the one that was asked for: another was put in its place."""


class NoRanges(Refused):
    """The store gives no part of an object, only all of it."""


class TooLarge(Refused):
    """The store, or a proxy before it, does not take the dump in such parts. From now on `limits` tell in which it does."""


class Expired(Refused):
    """The credentials were good until a moment ago; where the SDK's chain gives new ones, sending again helps."""


class Corrupted(Refused):
    """The store received other bytes than were sent and threw them away; sending again can help."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What the store tells of one object. `crc32` is the store's own checksum of the whole object, where it keeps one.

    `metadata` is what was given at its upload, names in lower case; None where the call that made this answer
    does not carry it (a listing). `reserved`: not an object yet, but a reservation as version 0.1 made them: an empty
    object under the dump's own key.
    """

    key: str
    size_bytes: int
    etag: str
    modified: float
    metadata: Mapping[str, str] | None = None
    crc32: int | None = None
    storage_class: str = "STANDARD"
    reserved: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One stored part of a multipart upload; `etag` as the store gave it, without its quotes."""

    number: int
    size_bytes: int
    etag: str
    crc32: int | None = None


@dataclass(frozen=True, slots=True)
class OpenUpload:
    """A multipart upload that was begun, and neither completed nor aborted. `started` is by the store's clock."""

    key: str
    upload_id: str
    started: float


@dataclass(frozen=True, slots=True)
class Link:
    """A URL that fetches one object without credentials: a secret, which no log shows.

    `until`: seconds since the epoch. `at_most`: it ends before that if the session that signed it does.
    """

    url: str = field(repr=False)
    until: float
    at_most: bool = False


class Span(Protocol):
    """Bytes that are read when they are sent, from their start, once or more often.

    `failure` is what a `read` raised: the store raises that, and not what its client made of it.
    """

    @property
    def failure(self) -> Exception | None: ...

    def anew(self) -> Span:
        """Give the same bytes once more, from their start, with nothing read of them."""

    def read(self, size: int = -1, /) -> bytes: ...
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def tell(self) -> int: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of one request with their CRC32, which the caller knew before the request.

    `data` lies in memory, or is a `Span` where it is too large for that.
    """

    data: bytes | Span
    crc32: int

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def anew(self) -> Body:
        """Give the body for another attempt: of the one before nobody knows how far it was read."""
        return self if isinstance(self.data, bytes) else Body(self.data.anew(), self.crc32)

    def md5(self) -> bytes | None:
        """Give the MD5 of the bytes, which are read for it; None where the machine has no MD5 (FIPS)."""
        if isinstance(self.data, bytes):
            return md5_of([self.data])
        span = self.data
        span.seek(0)
        md5 = md5_of(iter(lambda: span.read(1 << 20), b""))
        span.seek(0)
        return md5

    def in_memory(self) -> bytes:
        """Give the bytes."""
        if isinstance(self.data, bytes):
            return self.data
        self.data.seek(0)
        return self.data.read()


class Store(Protocol):
    """A bucket. Safe to call from several threads at once."""

    @property
    def name(self) -> str:
        """Name the bucket and where it is, for messages."""

    @property
    def limits(self) -> Limits: ...

    def must_reserve(self) -> bool:
        """Say whether the store may let the later of two multipart uploads of one key overwrite the earlier one.

        Tries it out, the first time. Raises Refused, Unreachable.
        """

    def can_delete(self) -> bool:
        """Say whether an object that is deleted is gone: it is allowed, and no version of it stays.

        Tries it out, the first time. Raises Unreachable.
        """

    def check(self) -> None:
        """Return if the bucket answers us. Raises Refused or Unreachable, with what to do."""

    def look(self, key: str) -> StoredObject | None:
        """Tell what is under `key`, None if nothing. Raises LookRefused where the store will not say."""

    def put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        """Store an object in one request, if the key is free. Raises Occupied, Corrupted."""

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        """Begin a multipart upload and give its upload id.

        Raises Refused, Unreachable.
        """

    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        """Store part `number` (from 1), in place of one that has this number; the CRC32 told back is the body's.

        Raises NoSuchUpload, Corrupted.
        """

    def parts(self, key: str, upload_id: str) -> list[Part]:
        """Give the parts that the store holds, by number. Raises NoSuchUpload."""

    def complete(
        self, key: str, upload_id: str, parts: list[Part], *, crc32: int, replace: bool = False
    ) -> None:
        """Make the object out of its parts, if the key is free; `crc32` is that of the whole object.

        `replace`: what stands under the key is the caller's own reservation of version 0.1.
        Raises Occupied (the upload stays open), NoSuchUpload.
        """

    def abort(self, key: str, upload_id: str) -> None:
        """Throw an open upload and its parts away. No error if there is none."""

    def open_uploads(self, prefix: str) -> list[OpenUpload]:
        """Give the multipart uploads whose keys begin with `prefix`."""

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        """Give the objects whose keys begin with `prefix`, without their metadata; in key order on most stores."""

    def read(
        self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> Iterator[bytes]:
        """Give an object's bytes from `start` in chunks. Raises Refused if there is none, NoRanges if it gives no part.

        With `etag`, of that very object: raises Replaced if the store holds another one.
        """

    def delete(self, key: str) -> None:
        """Delete the object. No error if there is none."""
