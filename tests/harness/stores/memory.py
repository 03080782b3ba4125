"""A store in memory, for tests and dry thoughts: passes the same acceptance suite as the real ones."""

from __future__ import annotations

import hashlib
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from dumpagent.errors import Refused
from dumpagent.part_sizes import Limits
from dumpagent.store.protocol import (
    Body,
    Corrupted,
    NoSuchUpload,
    Occupied,
    OpenUpload,
    Part,
    Replaced,
    StoredObject,
)


@dataclass
class _Object:
    content: bytes
    metadata: dict[str, str]
    etag: str
    modified: float
    crc32: int


@dataclass
class _Upload:
    key: str
    metadata: dict[str, str]
    started: float
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


class MemoryStore:
    """A bucket that lives as long as this object. `limits` may be small, so that multipart is cheap to test."""

    def __init__(self, *, limits: Limits | None = None) -> None:
        self.name = "memory"
        self.limits = limits or Limits()
        self._objects: dict[str, _Object] = {}
        self._uploads: dict[str, _Upload] = {}
        self._lock = threading.Lock()
        self._counter = 0

    def check(self) -> None:
        return

    def must_reserve(self) -> bool:
        return False

    def can_delete(self) -> bool:
        return True

    def look(self, key: str) -> StoredObject | None:
        with self._lock:
            found = self._objects.get(key)
            return None if found is None else self._describe(key, found)

    def put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        content = _verified(body)
        with self._lock:
            self._refuse_occupied(key)
            self._objects[key] = _Object(content, dict(metadata), _md5(content), time.time(), body.crc32)

    def begin(self, key: str, metadata: Mapping[str, str]) -> str:
        with self._lock:
            self._counter += 1
            upload_id = f"upload-{self._counter}"
            self._uploads[upload_id] = _Upload(key, dict(metadata), time.time())
            return upload_id

    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        content = _verified(body)
        part = Part(number, len(content), _md5(content), body.crc32)
        with self._lock:
            self._upload(key, upload_id).parts[number] = (part, content)
        return part

    def parts(self, key: str, upload_id: str) -> list[Part]:
        with self._lock:
            return [part for _, (part, _) in sorted(self._upload(key, upload_id).parts.items())]

    def complete(
        self,
        key: str,
        upload_id: str,
        parts: list[Part],
        *,
        crc32: int,
        replace: bool = False,
    ) -> None:
        with self._lock:
            upload = self._upload(key, upload_id)
            if not replace:
                self._refuse_occupied(key)
            for part in parts:
                if part.number not in upload.parts or upload.parts[part.number][0].etag != part.etag:
                    raise Refused(
                        f"completing {key}: the store answered 400 InvalidPart (part {part.number})"
                    )
            content = b"".join(upload.parts[part.number][1] for part in parts)
            if zlib.crc32(content) != crc32:
                raise Corrupted(f"completing {key}: the store answered 400 BadDigest")
            etag = f"{_md5(b''.join(bytes.fromhex(part.etag) for part in parts))}-{len(parts)}"
            self._objects[key] = _Object(content, upload.metadata, etag, time.time(), crc32)
            del self._uploads[upload_id]

    def abort(self, key: str, upload_id: str) -> None:
        with self._lock:
            if upload_id in self._uploads and self._uploads[upload_id].key == key:
                del self._uploads[upload_id]

    def open_uploads(self, prefix: str) -> list[OpenUpload]:
        with self._lock:
            return [
                OpenUpload(upload.key, upload_id, upload.started)
                for upload_id, upload in sorted(self._uploads.items())
                if upload.key.startswith(prefix)
            ]

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        with self._lock:
            found = [
                self._describe(key, self._objects[key])
                for key in sorted(self._objects)
                if key.startswith(prefix)
            ]
        for stored in found:
            yield StoredObject(
                stored.key, stored.size_bytes, stored.etag, stored.modified, None, stored.crc32
            )

    def read(
        self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> Iterator[bytes]:
        with self._lock:
            if key not in self._objects:
                raise Refused(f"reading {key}: the store answered 404 NoSuchKey")
            if etag not in (None, self._objects[key].etag):
                raise Replaced(f"reading {key}: the store answered 412 PreconditionFailed")
            content = self._objects[key].content
        yield content[start : None if length is None else start + length]

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(key, None)

    def _describe(self, key: str, found: _Object) -> StoredObject:
        return StoredObject(
            key, len(found.content), found.etag, found.modified, dict(found.metadata), found.crc32
        )

    def _refuse_occupied(self, key: str) -> None:
        if key in self._objects:
            raise Occupied(f"writing {key}: the store answered 412 PreconditionFailed")

    def _upload(self, key: str, upload_id: str) -> _Upload:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.key != key:
            raise NoSuchUpload(f"multipart upload of {key}: the store answered 404 NoSuchUpload")
        return upload


def _verified(body: Body) -> bytes:
    content = body.in_memory()
    if zlib.crc32(content) != body.crc32:
        raise Corrupted("the store answered 400 BadDigest")
    return content


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
