"""Claims a dump for one job: a conditional object that expires with the job's deadline."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable

from dumpagent.errors import Refused, Unreachable
from dumpagent.pending.attempts import Attempt, claim_key, ending_key
from dumpagent.store.protocol import Body, Occupied, Store, StoredObject

_VERSION = 1
_BODY_BYTES = 4096
# What the clocks of two jobs and the store may be apart. Where they are more, two jobs do one dump, which harms nothing.
_CLOCKS_APART_S = 30.0
# Of a claim that cannot be read.
_UNKNOWN_S = 86400.0


def claim(store: Store, path: str, number: int, *, prefix: str, seconds: float, job: str) -> bool:
    """Claim a dump for an attempt that ends in `seconds`; say whether no other job has it.

    On a store without conditional writes two jobs may both hear yes. Raises Refused, Unreachable.
    """
    content = json.dumps({"version": _VERSION, "seconds": round(seconds), "job": job}).encode()
    try:
        store.put(claim_key(path, number, prefix=prefix), Body(content, zlib.crc32(content)), {})
    except Occupied:
        return False
    return True


def expires(store: Store, claimed: StoredObject) -> float:
    """Give when a claim ends, in seconds since the epoch by the store's clock. Raises Unreachable."""
    seconds = _UNKNOWN_S
    try:
        told = json.loads(b"".join(store.read(claimed.key, length=_BODY_BYTES)))
        seconds = min(float(told["seconds"]), 7 * _UNKNOWN_S)
    except (Refused, ValueError, KeyError, TypeError):
        pass
    return claimed.modified + max(0.0, seconds) + _CLOCKS_APART_S


def note_ending(store: Store, path: str, attempt: Attempt, reason: str, *, prefix: str) -> None:
    """Note how an attempt ended without a report. Raises Refused, Unreachable."""
    content = json.dumps({"version": _VERSION, "reason": reason}).encode()
    try:
        store.put(ending_key(path, attempt, prefix=prefix), Body(content, zlib.crc32(content)), {})
    except Occupied:
        pass  # another job found the same


def remove_notes(store: Store, keys: Iterable[str]) -> None:
    """Delete notes; where that is not allowed they stay, and a claim ends by itself."""
    try:
        for key in keys:
            store.delete(key)
    except (Refused, Unreachable):
        pass
