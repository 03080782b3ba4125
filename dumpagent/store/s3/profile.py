"""What one store can and cannot do, found out by asking it, and remembered.

S3-compatible stores differ where it hurts: some accept a checksum header without checking it, some refuse a storage
class, some ignore conditions on writes. None of that is documented dependably, so each is tried before it is relied on.
"""

from __future__ import annotations

import enum
import json
from dataclasses import asdict, dataclass

_VERSION = 1


class Digest(enum.Enum):
    """Which digest beside a request's body this store was seen to verify."""

    CRC32 = "crc32"  # x-amz-checksum-crc32, 0.06 CPU-s/GiB
    MD5 = "md5"  # Content-MD5, 1.5 CPU-s/GiB, and nearly every store has it
    # Asked for (a bucket with Object Lock), and not verified.
    ASKED_FOR_CRC32 = "crc32, unverified"
    ASKED_FOR_MD5 = "md5, unverified"
    NONE = "none"  # takes anything: lengths and the metadata are all that can be confirmed


@dataclass(frozen=True, slots=True)
class Profile:
    """One store's ways; None: not tried yet.

    `storage_class`: takes the configured one. `whole_checksum`: keeps one CRC32 over all parts of a multipart
    upload. `conditional`: knows If-None-Match on writes (False: refuses the header). `conditional_complete`: heeds it
    when a multipart upload is completed (False: takes the header and overwrites all the same, as Ceph RGW 16 does).
    `multipart`: knows uploads in parts. `deletes`: an object that is deleted is gone. `tags`, `head`, `lists_v2`: knows object tags, HEAD, version 2 of listings. `body_max_bytes`: larger requests were
    refused, by the store or a proxy before it. `clock_ahead_s`: its clock is so much ahead of this node's.
    """

    digest: Digest | None = None
    storage_class: bool | None = None
    whole_checksum: bool | None = None
    conditional: bool | None = None
    conditional_complete: bool | None = None
    tags: bool | None = None
    head: bool | None = None
    lists_v2: bool | None = None
    deletes: bool | None = None
    multipart: bool | None = None
    body_max_bytes: int | None = None
    clock_ahead_s: float | None = None

    def to_json(self, *, store: str) -> str:
        """Give the text that `from_json` reads; `store` says of which store and configuration this was learnt."""
        values = asdict(self)
        values["digest"] = self.digest.value if self.digest else None
        return json.dumps({"version": _VERSION, "store": store, **values})

    @classmethod
    def from_json(cls, text: str, *, store: str) -> Profile:
        """Read what `to_json` wrote; from anything else, or of another store, nothing is known."""
        try:
            values = dict(json.loads(text))
            if values.pop("version") != _VERSION or values.pop("store") != store:
                return cls()
            values["digest"] = Digest(values["digest"]) if values["digest"] else None
            return cls(**values)
        except (ValueError, KeyError, TypeError):
            return cls()
