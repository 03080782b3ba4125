"""Asks the store, after an upload, whether it holds what was sent."""

from __future__ import annotations

from dataclasses import dataclass

from dumpagent.errors import DumpagentError
from dumpagent.store.protocol import LookRefused, Store
from dumpagent.upload.transfer import metadata

_HINT = "the dump stays here and is sent again; if this goes on, the store or a proxy before it changes what it is sent"


class NotAsSent(DumpagentError):
    """The store answered with success and holds something else."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An object as the store must hold it now, and what it took. `upload_id`: of the upload that made it, if one did."""

    stored_bytes: int
    crc32: int
    sent_bytes: int
    resumed: bool = False
    upload_id: str | None = None


def confirm(store: Store, key: str, contents: metadata.Contents, sent: Sent) -> bool:
    """Ask the store what it holds now; say whether it told. Raises NotAsSent if it holds something else."""
    try:
        found = store.look(key)
    except LookRefused:
        return False
    if found is None:
        raise NotAsSent(f"{store.name} said that {key} is stored, and has no such object", hint=_HINT)
    if found.size_bytes != sent.stored_bytes:
        raise NotAsSent(
            f"{store.name} holds {found.size_bytes} bytes under {key}, sent were {sent.stored_bytes}",
            hint=_HINT,
        )
    if not metadata.holds(found.metadata, contents):
        raise NotAsSent(
            f"{store.name} holds {key} with other metadata than were sent: {found.metadata}", hint=_HINT
        )
    if found.crc32 is not None and found.crc32 != sent.crc32:
        raise NotAsSent(
            f"{store.name} has CRC32 {found.crc32:08x} for {key}, what was sent has {sent.crc32:08x}",
            hint=_HINT,
        )
    return True
