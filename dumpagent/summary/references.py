"""One reference from a holder to what it holds, as it was found in the bytes of a heap."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

_HITS_MOST = 64


class HeldBy(enum.Enum):
    """How something is held."""

    FIELD = "field"
    ELEMENT = "element"
    STATIC = "static"
    LOCAL = "local"
    THREAD = "thread"


@dataclass(frozen=True, slots=True)
class HeapReference:
    """One reference: `holder`, of class `class_id`, holds by the field `name`. `serial` is the thread's of a local."""

    kind: HeldBy
    holder: bytes
    class_id: bytes = b""
    name: bytes = b""
    serial: int = 0
    beside: bytes = b""  # of an entry of a ThreadLocalMap: the ThreadLocal
    piece: int = 0
    linked: bool = False  # the holder is one of many alike that hold each other
    declared_by: bytes = b""  # the class that declares the field: `class_id` or a superclass


@dataclass(frozen=True, slots=True)
class Known:
    """Identifiers of classes and of field names that mean something; each may be missing."""

    weak: frozenset[bytes]  # classes whose referent they do not hold
    thread_local_entry: bytes | None
    referent: bytes | None
    backwards: frozenset[bytes]  # names of fields that lead from a part to its whole


def hits_of(chunk: bytes, targets: Iterable[bytes]) -> list[tuple[int, bytes]]:
    """Give where the targets stand in `chunk`, in order; at most 64 places of each."""
    found = []
    for target in targets:
        at, many = chunk.find(target), 0
        while at >= 0 and many < _HITS_MOST:
            found.append((at, target))
            many += 1
            at = chunk.find(target, at + 1)
    found.sort()
    return found
