"""What the SDK's answers mean, as the values of the store's protocol; digests as headers."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from dumpagent.store.protocol import Body, OpenUpload, Part, StoredObject
from dumpagent.store.s3.profile import Digest

_RESERVED = "reserved"  # the metadata by which version 0.1 told a reservation
# The metadata of a dump, whose names some stores change: Azure behind S3Proxy gives `_` for `-`.
_NAMES = {
    "".join(letter for letter in name if letter.isalnum()): name
    for name in (
        "upload-time",
        "dump-time",
        "original-size",
        "original-path",
        "agent-version",
        "agent-pod",
        "agent-namespace",
    )
}


def object_of(key: str, answer: Mapping[str, Any]) -> StoredObject:
    """Give what a HEAD or a GET tells of an object."""
    metadata = {_name_of(name): value for name, value in answer.get("Metadata", {}).items()}
    checksum = None
    if answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        checksum = crc32_of(answer.get("ChecksumCRC32"))
    size_bytes = answer.get("ContentLength", 0)
    _, slash, whole = str(answer.get("ContentRange") or "").partition("/")
    if slash and whole.isdigit():
        size_bytes = int(whole)
    return StoredObject(
        key=key,
        size_bytes=size_bytes,
        etag=etag_of(answer),
        modified=modified_of(answer),
        metadata=metadata,
        crc32=checksum,
        storage_class=answer.get("StorageClass", "STANDARD"),
        reserved=size_bytes == 0 and _RESERVED in metadata,
    )


def _name_of(name: str) -> str:
    lower = name.lower()
    return _NAMES.get("".join(letter for letter in lower if letter.isalnum()), lower)


def etag_of(entry: Mapping[str, Any]) -> str:
    """Give the ETag without its quotes; a proxy that compresses makes it weak, which the store itself does not know."""
    return str(entry.get("ETag") or "").removeprefix("W/").strip('"')


def modified_of(entry: Mapping[str, Any]) -> float:
    """Give when the object was made, 0 where the store does not tell."""
    modified = entry.get("LastModified")
    return modified.timestamp() if modified else 0.0


def part_of(entry: Mapping[str, Any]) -> Part:
    """Give one part of a listing."""
    return Part(entry["PartNumber"], entry["Size"], etag_of(entry), crc32_of(entry.get("ChecksumCRC32")))


def open_upload_of(entry: Mapping[str, Any]) -> OpenUpload:
    """Give one upload of a listing. Some stores do not tell when it began."""
    started = entry.get("Initiated")
    return OpenUpload(entry["Key"], entry["UploadId"], started.timestamp() if started else 0.0)


def digest_of(body: Body, digest: Digest) -> dict[str, str]:
    """Give the digest of `body` as the SDK's parameters."""
    if digest in (Digest.MD5, Digest.ASKED_FOR_MD5):
        if (md5 := body.md5()) is not None:
            return {"ContentMD5": base64.b64encode(md5).decode()}
        # A FIPS machine without MD5: the header that every S3 SDK sends, which most stores keep and AWS verifies.
        return {"ChecksumCRC32": base64_of(body.crc32)}
    if digest in (Digest.CRC32, Digest.ASKED_FOR_CRC32):
        return {"ChecksumCRC32": base64_of(body.crc32)}
    return {}


def base64_of(crc32: int) -> str:
    """Give a CRC32 as it stands in x-amz-checksum-crc32."""
    return base64.b64encode(crc32.to_bytes(4, "big")).decode()


def crc32_of(text: str | None) -> int | None:
    """Read x-amz-checksum-crc32; None for none, and for one over the parts' checksums, which ends in "-<parts>"."""
    if not text or "-" in text:
        return None
    try:
        return int.from_bytes(base64.b64decode(text), "big")
    except ValueError:
        return None
