"""Reservations: small objects by which an upload keeps a key, where the store would let two uploads overwrite each other.

A reservation lies at a key of its own in the index, which follows from the dump's key alone, and holds the metadata of
its dump as JSON. Where nothing can be deleted it stays, and is the dump's index entry.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from dumpagent.dumps.keys import own_key, path_of
from dumpagent.errors import Refused, Unreachable
from dumpagent.store.protocol import Body, Occupied, Store

_VERSION = 1
_MOST_BYTES = 16 << 10
# S3 takes 1,024 bytes; a key that gets longer by the folder goes by its hash.
_KEY_BYTES = 960
_TELLS_APART = ("crc32", "original-size")
_FOLDER = "index/reserved"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A key that is kept, and the metadata of the dump that it is kept for."""

    key: str
    metadata: Mapping[str, str]


def reservations_prefix(prefix: str) -> str:
    """Give what the keys of all reservations below S3_PREFIX begin with."""
    return own_key(prefix, f"{_FOLDER}/")


def reservation_key(key: str, *, prefix: str) -> str:
    """Give the key of the reservation of `key`, a dump's key below `prefix`."""
    whole = own_key(prefix, f"{_FOLDER}/{path_of(key, prefix=prefix)}.json")
    if len(whole.encode(errors="surrogateescape")) <= _KEY_BYTES:
        return whole
    return own_key(
        prefix, f"{_FOLDER}/~{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()}.json"
    )


def reserve(store: Store, key: str, metadata: Mapping[str, str], *, prefix: str) -> None:
    """Keep `key` for the dump with these metadata. Raises Occupied if another dump has it."""
    entry = {"version": _VERSION, "key": key, "metadata": dict(metadata)}
    content = json.dumps(entry, sort_keys=True).encode()
    where = reservation_key(key, prefix=prefix)
    try:
        store.put(where, Body(content, zlib.crc32(content)), {})
    except Occupied:
        there = reserved_for(store, key, prefix=prefix)
        if there is None or not is_same_dump(there, metadata):
            raise Occupied(f"{key} in {store.name} is kept for another upload ({where})") from None


def reserved_for(store: Store, key: str, *, prefix: str) -> Mapping[str, str] | None:
    """Give the metadata of the dump that `key` is kept for; None if it is free, or the store does not tell.

    Raises Unreachable.
    """
    found = read_reservation(store, reservation_key(key, prefix=prefix))
    return found.metadata if found and found.key == key else None


def read_reservation(store: Store, reserved_at: str) -> Reservation | None:
    """Give the reservation under this key of its own; None if there is none, or the store does not tell.

    Raises Unreachable.
    """
    content = b""
    try:
        for chunk in store.read(reserved_at):
            content += chunk
            if len(content) > _MOST_BYTES:
                return None
        entry = json.loads(content)
        if entry["version"] != _VERSION:
            return None
        told = {str(name): str(value) for name, value in entry["metadata"].items()}
        return Reservation(str(entry["key"]), told)
    except (Refused, ValueError, KeyError, TypeError, AttributeError):
        return None


def release(store: Store, key: str, metadata: Mapping[str, str], *, prefix: str) -> None:
    """Delete the reservation of `key` if it is that of the dump with these metadata; where that is not allowed, it stays.

    It is small, and keeps nobody from anything: its key is either taken, or nobody else's.
    """
    try:
        there = reserved_for(store, key, prefix=prefix)
        if there is not None and is_same_dump(there, metadata):
            store.delete(reservation_key(key, prefix=prefix))
    except (Refused, Unreachable):
        pass


def is_same_dump(told: Mapping[str, str], metadata: Mapping[str, str]) -> bool:
    """Say whether both are of the same bytes."""
    return all(told.get(name) is not None and told.get(name) == metadata.get(name) for name in _TELLS_APART)
