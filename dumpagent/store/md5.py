"""MD5 as S3 uses it: a checksum, no proof of anything; and not to be had at all on some FIPS machines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def md5_of(chunks: Iterable[bytes]) -> bytes | None:
    """Give the MD5 of the bytes; None where the machine's OpenSSL refuses it even as a plain checksum.

    Source: Python, hashlib, "usedforsecurity"; OpenSSL fips_module(7). No caller needs it: Content-MD5 is replaced by
    x-amz-checksum-crc32, and a part whose ETag cannot be compared is sent again.
    """
    try:
        md5 = hashlib.md5(usedforsecurity=False)
    except (AttributeError, ValueError):  # built without MD5; or only FIPS providers are loaded
        return None
    for chunk in chunks:
        md5.update(chunk)
    return md5.digest()


def has_md5() -> bool:
    """Say whether this machine has MD5."""
    return md5_of(()) is not None
