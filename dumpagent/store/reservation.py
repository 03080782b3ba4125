"""Reservations: small objects by which an upload keeps a key, where the store would let two uploads overwrite each other.

A reservation lies at a key of its own, below `.dumpagent/`, and holds the metadata of its dump as JSON. On a store that
drops an object's metadata it stays, and readers find there what the object itself does not tell.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import replace

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.store.protocol import Body, Occupied, Store, StoredObject, own_key

_VERSION = 1
_MOST_BYTES = 16 << 10
# S3 takes 1,024 bytes; a key that gets longer by the folder goes by its hash.
_KEY_BYTES = 960
_TELLS_APART = ("crc32", "original-size")


def reservation_key(key: str, *, prefix: str) -> str:
    """Give the key of the reservation of `key`, a dump's key below `prefix`."""
    clean = prefix.strip("/")
    below = key.removeprefix(f"{clean}/") if clean else key
    whole = own_key(prefix, f"uploads/{below}.json")
    if len(whole.encode(errors="surrogateescape")) <= _KEY_BYTES:
        return whole
    return own_key(
        prefix, f"uploads/~{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()}.json"
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
    content = b""
    try:
        for chunk in store.read(reservation_key(key, prefix=prefix)):
            content += chunk
            if len(content) > _MOST_BYTES:
                return None
        entry = json.loads(content)
        told = entry["metadata"] if entry["version"] == _VERSION and entry["key"] == key else None
    except (Refused, ValueError, KeyError, TypeError):
        return None
    return {str(name): str(value) for name, value in told.items()} if isinstance(told, dict) else None


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


def with_metadata(store: Store, found: StoredObject, *, prefix: str) -> StoredObject:
    """Give the object with the metadata that its store has dropped, where the agent has kept them; else as it is."""
    if found.metadata is None or "crc32" in found.metadata or "node" in found.metadata:
        return found
    try:
        kept = reserved_for(store, found.key, prefix=prefix)
    except DumpagentError:
        return found
    return replace(found, metadata=kept) if kept else found
