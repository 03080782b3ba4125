"""One reference from a holder to what it holds, as it was found in the bytes of a heap."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
