"""What is remembered of uploads: the receipt of a stored dump, the notes of an unfinished one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from dumpagent.dumps.model import Identity


@dataclass(frozen=True, slots=True)
class Receipt:
    """One dump is in the store. `verified`: the store confirmed length and metadata when it was asked afterwards;
    `rechecked`: and once more some time later.

    `store` names the bucket; a receipt counts only there. `gone_since` is when the dump was first missed on disk.
    `described`: the object carries its metadata, which some stores drop.
    `sent_bytes` is 0 if the dump was there already; `resumed`: an unfinished upload went on.
    """

    identity: Identity
    path: str
    store: str
    key: str
    crc32: int
    stored_bytes: int
    uploaded_at: float
    verified: bool
    gone_since: float | None = None
    rechecked: bool = False
    described: bool = True
    sent_bytes: int = 0
    resumed: bool = False

    @property
    def is_news(self) -> bool:
        """Say whether this upload put the dump there; of an empty dump nobody can tell."""
        return bool(self.sent_bytes or not self.stored_bytes)


@dataclass(frozen=True, slots=True)
class PackedPart:
    """A part of compressed bytes that the store has confirmed.

    `end` is the offset in the dump of the block that the next part begins with or in: `carried_bytes` of that block's
    gzip member, made at `level`, are the end of this part; `carried_crc32` is theirs.
    """

    etag: str
    size_bytes: int
    crc32: int
    end: int
    carried_bytes: int = 0
    carried_crc32: int = 0
    level: int = 0


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A multipart upload that was begun. `etags` are those of the parts that the store has confirmed, by number.

    `packed` has the same of an upload that is compressed on its way, where a part's number does not tell its bytes.
    """

    identity: Identity
    store: str
    key: str
    upload_id: str
    part_bytes: int
    crc32: int
    etags: dict[int, str] = field(default_factory=dict)
    packed: dict[int, PackedPart] = field(default_factory=dict)


class Journal(Protocol):
    """Where unfinished uploads are noted, so that a kill costs what was under way and no more."""

    def unfinished(self, identity: Identity) -> Unfinished | None:
        """Give the upload of this very dump that was begun and not ended."""

    def all_unfinished(self) -> list[Unfinished]: ...

    def note_unfinished(self, unfinished: Unfinished) -> None:
        """Note an upload that is under way, in place of what was known of it."""

    def forget_unfinished(self, identity: Identity) -> None: ...
