"""Whether what the store holds is what was sent, and a dump that is whole: everything is read, nothing kept."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dumpagent.dumps.model import State
from dumpagent.fetch.stored import StoredDump
from dumpagent.fetch.stream import Broken, Damaged, Forwards, Pause, Summed, read_object, unpack
from dumpagent.hprof.records import GZIP_MAGIC
from dumpagent.hprof.walk import Shape, Walk, Walked
from dumpagent.store.protocol import Store

_UNLIMITED = 1 << 62


class Integrity(enum.Enum):
    """What is known of an object's bytes."""

    INTACT = "intact"  # they are the ones that were sent
    DAMAGED = "damaged"
    UNPROVEN = "unproven"  # nobody left a checksum


@dataclass(frozen=True, slots=True)
class Verified:
    """One object, read to its end. `reason` is a clause for a person; `walked` is what its records say."""

    dump: StoredDump
    integrity: Integrity
    reason: str
    walked: Walked
    crc32: int

    @property
    def complete(self) -> bool:
        """Say whether it is a whole heap dump, by its own records."""
        return self.walked.shape is Shape.COMPLETE


def verify(
    store: Store,
    dump: StoredDump,
    *,
    pause: Pause,
    advance: Callable[[int], None] = lambda _bytes: None,
    broken: Broken = lambda _offset, _error: None,
) -> Verified:
    """Read the object and say what it is worth. Raises Unreachable, Refused (Replaced: by another object)."""
    packed = Summed(_told(read_object(store, dump.stored, pause=pause, broken=broken), advance))
    raw = Forwards(packed)
    is_gzip = raw.read_at(0, len(GZIP_MAGIC)) == GZIP_MAGIC
    unpacked: Summed | None = Summed(unpack(raw.rest())) if is_gzip else None
    stream = Forwards(unpacked) if unpacked else raw
    damage: str | None = None
    walked = Walked(Shape.UNFINISHED, "")
    try:
        walked = Walk().advance(
            stream, size_bytes=None if is_gzip else dump.size_bytes, budget_bytes=_UNLIMITED
        )
        stream.drain()
    except Damaged as error:
        damage = str(error)
        walked = Walked(Shape.BROKEN, damage)
        raw.drain()
    integrity, reason = _judge(dump, packed, unpacked, damage)
    if (
        integrity is Integrity.INTACT
        and dump.verdict == State.COMPLETE.value
        and walked.shape is not Shape.COMPLETE
    ):
        integrity, reason = Integrity.DAMAGED, f"it was stored as complete, but {walked.reason}"
    return Verified(dump, integrity, reason, walked, packed.crc32)


def _judge(
    dump: StoredDump, packed: Summed, unpacked: Summed | None, damage: str | None
) -> tuple[Integrity, str]:
    wanted = dump.checksum
    if wanted is None:
        return Integrity.UNPROVEN, "nobody left a checksum with it"
    summed = packed
    if wanted.unpacked:
        if damage:
            return Integrity.DAMAGED, damage
        if unpacked is None:
            return (
                Integrity.DAMAGED,
                f"it has {packed.size_bytes} bytes, the dump had {wanted.size_bytes}, and it is not compressed",
            )
        summed = unpacked
    if summed.size_bytes != wanted.size_bytes:
        return Integrity.DAMAGED, f"it has {summed.size_bytes} bytes, the dump had {wanted.size_bytes}"
    if summed.crc32 != wanted.crc32:
        return Integrity.DAMAGED, f"its CRC32 is {summed.crc32:08x}, the dump's was {wanted.crc32:08x}"
    return Integrity.INTACT, f"CRC32 {wanted.crc32:08x}"


def _told(chunks: Iterable[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        advance(len(chunk))
