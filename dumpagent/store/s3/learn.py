"""Tries out what a store does with a digest and with conditions, on an upload of its own key."""

from __future__ import annotations

import base64
import functools
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from dumpagent.errors import Refused
from dumpagent.store.protocol import Body, Corrupted, Expired, NoSuchUpload, Occupied, Part, TooLarge
from dumpagent.store.s3.profile import Digest
from dumpagent.store.s3.request import code_of, status_of

_DATA = b"does this store verify what it is told?"


class Tried(Protocol):
    """The store that is tried out."""

    def begin_trial(self, key: str) -> str: ...
    def send_trial_part(self, key: str, upload_id: str, data: bytes, **header: Any) -> None: ...
    def send_trial(self, key: str, data: bytes, **header: Any) -> None: ...
    def put_if_free(self, key: str, body: Body) -> None: ...
    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part: ...
    def complete(self, key: str, upload_id: str, parts: list[Part], *, crc32: int) -> None: ...
    def abort(self, key: str, upload_id: str) -> None: ...


def try_digests(store: Tried, key: str, *, has_md5: bool = True) -> Digest:
    """Give the cheapest digest that the store verifies: that it refuses when it is wrong, and takes when it is right.

    Tried on parts of an upload that is aborted, so that nothing is ever stored by it; on a store that knows no such
    uploads, on an object. Both have a key of their own: whoever finds one after a kill knows what it is. Raises Refused,
    Unreachable.
    """
    try:
        upload_id = store.begin_trial(key)
    except TooLarge:
        return _try_digests(functools.partial(store.send_trial, key), has_md5=has_md5)
    try:
        return _try_digests(functools.partial(store.send_trial_part, key, upload_id), has_md5=has_md5)
    finally:
        _abort(store, key, upload_id)


def _try_digests(send: Callable[..., None], *, has_md5: bool) -> Digest:
    crc32, md5 = zlib.crc32(_DATA), Body(_DATA, 0).md5()
    tries: list[tuple[Digest, dict[str, str], dict[str, str]]] = [
        (Digest.CRC32, {"ChecksumCRC32": _crc32(1)}, {"ChecksumCRC32": _crc32(crc32)}),
    ]
    if has_md5 and md5 is not None:
        tries.append((Digest.MD5, {"ContentMD5": _base64(bytes(16))}, {"ContentMD5": _base64(md5)}))
    taken: list[Digest] = []
    for digest, wrong, right in tries:
        verified = _refuses(send, wrong)
        if _takes(send, right):
            if verified:
                return digest
            taken.append(digest)
    if not taken:
        send(_DATA)  # refused too: that has nothing to do with digests
        return Digest.NONE
    if _takes(send, {}):
        return Digest.NONE
    # A bucket with Object Lock asks for a digest, whether the store verifies it or not.
    return Digest.ASKED_FOR_MD5 if Digest.MD5 in taken else Digest.ASKED_FOR_CRC32


def _abort(store: Tried, key: str, upload_id: str) -> None:
    try:
        store.abort(key, upload_id)
    except Refused:
        pass  # credentials that may only write: an upload with one small part stays open


def try_condition(store: Tried, key: str) -> bool:
    """Say whether the store keeps an object when another is put under its key with `If-None-Match: *`.

    Some take the header and overwrite all the same (rclone 1.75). Leaves an object under `key`. Raises Unreachable,
    and Refused where nothing can be put at all.
    """
    body = Body(_DATA, zlib.crc32(_DATA))
    # The first one finds the key free, unless it was tried before; the second one too if another agent has just deleted it.
    for _ in range(3):
        try:
            store.put_if_free(key, body)
        except Occupied:
            return True
    return False


def try_conditions(store: Tried, key: str) -> bool:
    """Say whether the store keeps the object under `key` when an upload to it is completed with `If-None-Match: *`."""
    body = Body(_DATA, zlib.crc32(_DATA))
    try:
        upload_id = store.begin_trial(key)
        part = store.send_part(key, upload_id, 1, body)
        try:
            store.complete(key, upload_id, [part], crc32=body.crc32)
        except Occupied:
            return True
        finally:
            _abort(store, key, upload_id)  # an answer that was lost is not taken for an end, either
    except Refused:
        pass  # not allowed to try: as if it did not
    return False


def try_deletion(call: Callable[..., Any], key: str) -> bool:
    """Say whether an object that is deleted is gone. Tried on the object that `try_conditions` has left.

    Raises Unreachable.
    Source: S3 API Reference, HeadObject: x-amz-version-id on a versioned bucket, "null" where that is suspended.
    """
    doing = "trying whether objects can be deleted"
    try:
        found = call(doing, "head_object", Key=key) or {}
        if found.get("VersionId") not in (None, "", "null"):
            return False  # a version would stay, beside the mark of its deletion
    except Refused:
        pass
    try:
        answer = call(doing, "delete_object", Key=key)
    except Refused:
        return False
    return not answer.get("DeleteMarker")


def _refuses(send: Callable[..., None], header: dict[str, str]) -> bool:
    try:
        send(_DATA, **header)
    except Corrupted:
        return True
    except (NoSuchUpload, Expired):
        raise
    except Refused as error:
        # Some stores have codes of their own for a digest that does not fit. A refusal of the header itself is told
        # apart by the right digest, which is tried next.
        if "Token" in code_of(error):
            raise
        return status_of(error) in (400, 403, 405)
    return False


def _takes(send: Callable[..., None], header: dict[str, str]) -> bool:
    try:
        send(_DATA, **header)
    except (NoSuchUpload, Expired):
        raise
    except Refused as error:
        if "Token" in code_of(error):
            raise
        return False
    return True


def _crc32(value: int) -> str:
    return _base64(value.to_bytes(4, "big"))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
