"""Which key a dump gets, by what stands under each in the store: nothing, the dump itself, or something else."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isal import isal_zlib

from dumpagent.dumps import metadata
from dumpagent.dumps.keys import candidates
from dumpagent.dumps.source import read_span
from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.hprof import chunked
from dumpagent.index.lost import entry_of_time
from dumpagent.store.protocol import LookRefused, Store, StoredObject
from dumpagent.store.reservation import reserved_for
from dumpagent.upload.transfer.job import PreparedJob

_TAIL_BYTES = 512 << 10  # more than any last gzip member has
# A store that answers from several servers shows a new object to all of them only after a while.
SEEN_AFTER_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_HINT = "the dump stays here and is sent again; if this goes on, the store or a proxy before it changes what it is sent"


class NotAsSent(DumpagentError):
    """The store answered with success and holds something else."""


class Standing(enum.Enum):
    """What stands under a key."""

    FREE = "free"
    RESERVED_BY_US = "reserved by us"  # an empty object of version 0.1, which the upload replaces
    WHOLE = "whole"  # this dump, from end to end
    BROKEN = "broken"  # ours by its metadata, and not whole: of no use to anybody
    FOREIGN = "foreign"  # another object, which nobody touches
    UNKNOWN = "unknown"  # the store does not let us look: the conditional write has to find out


@dataclass(frozen=True, slots=True)
class Found:
    """The answer about one key. `stored_bytes` is the size of a WHOLE object, which may lack its metadata."""

    standing: Standing
    stored_bytes: int = 0
    described: bool = True


@dataclass(frozen=True, slots=True)
class KeyChoice:
    """A key that the dump may get or has, with what was found there, and how long the answer took.

    `is_other_form`: it is that of a packed dump where this one goes plain, or the other way round.
    """

    key: str
    found: Found
    round_trip_s: float = 0.0
    is_other_form: bool = False

    @property
    def is_stored(self) -> bool:
        """Say whether the store holds the dump there already."""
        return self.found.standing is Standing.WHOLE


@dataclass(frozen=True, slots=True)
class Sent:
    """An object as the store must hold it now, and what it took. `upload_id`: of the upload that made it, if one did."""

    stored_bytes: int
    crc32: int
    sent_bytes: int
    resumed: bool = False
    upload_id: str | None = None


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What the store told of an object that was just sent. `looked`: it told; `described`: its metadata are there."""

    looked: bool
    described: bool


def key_choices(
    store: Store, job: PreparedJob, *, prefix: str, node: str, monotonic: Callable[[], float]
) -> Iterator[KeyChoice]:
    """Give the keys that this dump may get or has, best first. Raises Refused when there are no more."""
    for key, other in _keys(job, prefix, node):
        if other:
            began = monotonic()
            found = standing_of(store, other, job, packed=not job.packed, prefix=prefix)
            if found.standing in (Standing.WHOLE, Standing.RESERVED_BY_US):
                # The latter: COMPRESSION was changed in the middle of an upload of version 0.1.
                yield KeyChoice(other, found, monotonic() - began, is_other_form=True)
        began = monotonic()
        found = standing_of(store, key, job, packed=job.packed, prefix=prefix)
        # The last one before the upload counts: by then the connection stands.
        if found.standing is not Standing.FOREIGN:
            yield KeyChoice(key, found, monotonic() - began)
    raise Refused(
        f"every key for {job.job.original} is taken by other objects",
        hint="nothing was overwritten; set S3_PREFIX to one of your own, or look who else writes to this bucket",
    )


def _keys(job: PreparedJob, prefix: str, node: str) -> Iterator[tuple[str, str | None]]:
    """Give the keys that the dump may get, each with the one it would have in the other form, if there is one."""
    plain = _keys_of(job, job.job.original, prefix, node)
    if not job.packable:
        return ((key, None) for key in plain)
    packed = _keys_of(job, f"{job.job.original}.gz", prefix, node)
    return zip(packed, plain, strict=True) if job.packed else zip(plain, packed, strict=True)


def _keys_of(job: PreparedJob, original: str, prefix: str, node: str) -> Iterator[str]:
    return candidates(
        prefix=prefix,
        original=original,
        dump_time_ms=job.job.dump_time_ms,
        node=node,
        crc32=job.contents.crc32,
    )


def standing_of(store: Store, key: str, job: PreparedJob, *, packed: bool, prefix: str = "") -> Found:
    """Say what stands under `key`, which would hold the dump in that form. Raises Unreachable, Refused, OSError."""
    try:
        found = store.look(key)
        if found is None:
            return Found(Standing.FREE)
        answer = _compare(store, found, job, packed=packed, prefix=prefix)
        if answer.standing is Standing.FOREIGN:
            # An answer whose headers were cut off on the way says so too, and the dump would be stored twice.
            again = store.look(key)
            if again is None or metadata.holds(again.metadata, job.contents):
                raise Unreachable(f"{store.name} gave two answers about {key}", hint="it is asked again")
        return answer
    except LookRefused:
        return Found(Standing.UNKNOWN)


def _compare(store: Store, found: StoredObject, job: PreparedJob, *, packed: bool, prefix: str) -> Found:
    if metadata.holds(found.metadata, job.contents):
        if found.reserved:
            return Found(Standing.RESERVED_BY_US)
        is_whole = _ends_alike(store, found, job) if packed else found.size_bytes == job.contents.size_bytes
        return Found(Standing.WHOLE, found.size_bytes) if is_whole else Found(Standing.BROKEN)
    if metadata.is_ours(found.metadata) or found.reserved or not found.size_bytes:
        return Found(Standing.FOREIGN)
    # Without metadata, or with none that we know: a store that drops them, or somebody else's object.
    if not packed and found.size_bytes != job.contents.size_bytes:
        return Found(Standing.FOREIGN)
    is_ours = _ends_alike(store, found, job, packed=packed)
    if is_ours:
        known = _known(store, found.key, job, prefix)
        is_ours = _is_same(store, found, job, packed=packed) if known is None else known
    return Found(Standing.WHOLE, found.size_bytes, described=False) if is_ours else Found(Standing.FOREIGN)


def _known(store: Store, key: str, job: PreparedJob, prefix: str) -> bool | None:
    """Say whether the object under `key` is this dump by what the agent has kept of it; None if that does not tell.

    An index entry names no owner and counts as the same, as an object of version 0.1.0 does.
    """
    try:
        kept = reserved_for(store, key, prefix=prefix)
        if kept is not None:
            return metadata.holds(kept, job.contents)
        entry = entry_of_time(store, key, job.job.dump_time_ms / 1000, prefix=prefix)
    except (Refused, ValueError, OverflowError, OSError):  # a dump time that no calendar has
        return None
    if entry is None or entry.original_bytes is None or entry.crc32 is None:
        return None
    return (entry.original_bytes, entry.crc32) == (job.contents.size_bytes, job.contents.crc32)


def _ends_alike(store: Store, found: StoredObject, job: PreparedJob, *, packed: bool = True) -> bool:
    """Say whether the object ends with what the dump ends with; how long a packed one has to be is known to nobody."""
    if not found.size_bytes:
        return False
    start = max(0, found.size_bytes - _TAIL_BYTES)
    tail = b"".join(store.read(found.key, start=start, length=found.size_bytes - start))
    content = chunked.last_member(tail) if packed else tail
    if not content or len(content) > job.contents.size_bytes:
        return False
    return content == read_span(job.fd, job.contents.size_bytes - len(content), len(content))


def _is_same(store: Store, found: StoredObject, job: PreparedJob, *, packed: bool) -> bool:
    """Read the whole object and say whether it is the dump. Only where the store dropped what would tell."""
    chunks = store.read(found.key)
    size_bytes = crc32 = 0
    try:
        for chunk in _unpacked(chunks) if packed else chunks:
            size_bytes += len(chunk)
            crc32 = isal_zlib.crc32(chunk, crc32)
            if size_bytes > job.contents.size_bytes:
                return False
    except zlib.error:
        return False
    return (size_bytes, crc32) == (job.contents.size_bytes, job.contents.crc32)


def _unpacked(chunks: Iterator[bytes]) -> Iterator[bytes]:
    member = zlib.decompressobj(wbits=31)
    for chunk in chunks:
        left = chunk
        while left:
            if member.eof:
                member = zlib.decompressobj(wbits=31)
            yield member.decompress(left)
            left = member.unused_data


def confirm(
    store: Store,
    key: str,
    contents: metadata.Contents,
    sent: Sent,
    *,
    wait: Callable[[float], object] = lambda _seconds: None,
) -> Confirmed:
    """Ask the store what it holds now; `wait` between the questions if it does not show the object yet.

    Raises NotAsSent if it holds something else.
    """
    try:
        found = store.look(key)
        for pause_s in SEEN_AFTER_S:
            if found is not None:
                break
            wait(pause_s)
            found = store.look(key)
    except LookRefused:
        return Confirmed(looked=False, described=False)
    if found is None:
        raise NotAsSent(f"{store.name} said that {key} is stored, and has no such object", hint=_HINT)
    if found.size_bytes != sent.stored_bytes:
        raise NotAsSent(
            f"{store.name} holds {found.size_bytes} bytes under {key}, sent were {sent.stored_bytes}",
            hint=_HINT,
        )
    if found.crc32 is not None and found.crc32 != sent.crc32:
        raise NotAsSent(
            f"{store.name} has CRC32 {found.crc32:08x} for {key}, what was sent has {sent.crc32:08x}",
            hint=_HINT,
        )
    described = metadata.holds(found.metadata, contents)
    if not described and metadata.is_ours(found.metadata):
        raise NotAsSent(
            f"{store.name} holds {key} with other metadata than were sent: {found.metadata}", hint=_HINT
        )
    return Confirmed(looked=True, described=described)
