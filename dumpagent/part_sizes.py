"""How large the parts of an upload are, how many are sent at once. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from dumpagent.errors import Refused
from dumpagent.units import KIB, MIB

SENT_BYTES = 256 * KIB  # of a body, at once
# Measured against a 100 ms round trip at 0.2 CPU: smaller ones wait for answers.
PART_BYTES = 16 * MIB
# Parts begin and end at multiples of this, so that a part's CRC32 follows from the fingerprint.
BLOCK_BYTES = 1 * MIB
# Each request costs some milliseconds of CPU: a GiB in parts of 64 MiB three quarters of one in parts of 16 MiB, and
# twice as much gains a tenth more. Parts are streamed, so their size costs no memory; but one that is cut off is sent
# anew, so a dump of few parts keeps smaller ones.
_LARGE_TIMES, _LARGE_COUNT = 4, 8
# Every store takes so many parts (OpenStack Swift no more: its max_upload_part_num).
_PARTS_EVERYWHERE = 1000
# Half of a plain part, since packed parts lie in memory while they are sent; never more than this.
_PACKED_MOST_BYTES = 32 * MIB
# Heap dumps compress to a third; what does not compress at all grows a little.
_PACKED_SHARE, _PACKED_GROWTH = 2, 64
# Parts that are sent at once: two hide each other's wait for the answer. Far away, four do it better.
_WORKERS, _WORKERS_FAR, _FAR_S = 2, 4, 0.05
_SCANTY_BYTES = 160 * MIB  # below this memory limit two must do


@dataclass(frozen=True, slots=True)
class Limits:
    """What one upload may look like. Source: S3 User Guide, "Amazon S3 multipart upload limits".

    `block_bytes`: of a body, handed over at once with the least CPU. `part_large_bytes`: parts grow above what they
    must be only up to this.
    """

    parts: int = 10_000
    part_min_bytes: int = 5 << 20
    part_max_bytes: int = 5 << 30
    part_large_bytes: int = 5 << 30
    object_max_bytes: int = 5 << 40
    block_bytes: int = SENT_BYTES


@dataclass(frozen=True, slots=True)
class PartSizes:
    """In what sizes one dump may go, bytes.

    `block`: its fingerprint is taken in such blocks. `part`: the smallest parts; `large`: those in which it is cheapest
    to send; `packed`: those of a dump that is compressed on its way, if it `can_pack`.
    """

    block: int
    part: int
    large: int
    packed: int
    can_pack: bool


def sizes_for(size_bytes: int, *, limits: Limits, usual_bytes: int) -> PartSizes:
    """Give the sizes for a dump of so many bytes; parts have `usual_bytes` where nothing asks for others. Raises Refused."""
    most_bytes = limits.part_max_bytes // BLOCK_BYTES * BLOCK_BYTES or limits.part_max_bytes
    least_bytes = min(usual_bytes, most_bytes)
    packed_least_bytes = max(least_bytes // 2, limits.part_min_bytes)
    part_bytes = part_size(size_bytes, limits=limits, least_bytes=least_bytes)
    large_most_bytes = min(limits.part_max_bytes, limits.part_large_bytes)
    return PartSizes(
        block=min(BLOCK_BYTES, least_bytes),
        part=part_bytes,
        large=large_part_size(size_bytes, part_bytes, least_bytes=least_bytes, most_bytes=large_most_bytes),
        packed=packed_part_size(size_bytes, limits=limits, least_bytes=packed_least_bytes),
        can_pack=can_pack_size(size_bytes, limits=limits, least_bytes=packed_least_bytes),
    )


def part_size(size_bytes: int, *, limits: Limits, least_bytes: int = PART_BYTES) -> int:
    """Give the bytes per part: `least_bytes`, or the smallest multiple of it with which the parts suffice.

    A thousand parts if they can hold the dump, else as many as S3 takes. Less than `least_bytes` where the store, or a
    proxy before it, takes only less at once.
    Source: S3 User Guide, "Amazon S3 multipart upload limits": 10,000 parts, 5 MiB to 5 GiB each, 5 TiB in all.
    Raises Refused for a dump that does not fit.
    """
    if size_bytes > limits.object_max_bytes:
        raise Refused(
            f"the dump has {size_bytes} bytes, the largest object {limits.object_max_bytes}",
            hint="no S3 store takes it in one object; compress it by hand",
        )
    least_bytes = min(least_bytes, limits.part_max_bytes)
    for most_parts in (min(_PARTS_EVERYWHERE, limits.parts), limits.parts):
        part_bytes = (-(-size_bytes // (most_parts * least_bytes)) or 1) * least_bytes
        if part_bytes <= limits.part_max_bytes:
            return part_bytes
    largest_bytes = limits.part_max_bytes // least_bytes * least_bytes
    if largest_bytes * limits.parts < size_bytes:
        raise Refused(
            f"the dump has {size_bytes} bytes; {limits.parts} parts of {largest_bytes} bytes do not hold it",
            hint="allow larger requests (S3_PART_SIZE, client_max_body_size of a proxy before the store)",
        )
    return largest_bytes


def large_part_size(
    size_bytes: int, part_bytes: int, *, least_bytes: int = PART_BYTES, most_bytes: int = 5 << 30
) -> int:
    """Give the bytes per part with which a dump is cheapest to send, a multiple of `part_bytes`, its `part_size`."""
    times = min(
        _LARGE_TIMES * least_bytes // part_bytes,
        size_bytes // (_LARGE_COUNT * part_bytes),
        most_bytes // part_bytes,
    )
    return part_bytes * max(1, times)


def packed_part_size(size_bytes: int, *, limits: Limits, least_bytes: int) -> int:
    """Give the length of the parts of a dump that is compressed on its way: all of one length, as Cloudflare R2 asks.

    A thousand hold it if it compresses to half, and all that the store takes hold it even if it does not compress.
    """
    least_bytes = max(limits.part_min_bytes, min(least_bytes, limits.part_max_bytes))
    most_bytes = max(least_bytes, min(_PACKED_MOST_BYTES, limits.part_max_bytes))
    usual = _times(size_bytes // _PACKED_SHARE, min(_PARTS_EVERYWHERE, limits.parts), least_bytes)
    worst = _times(size_bytes + size_bytes // _PACKED_GROWTH + 64 * KIB, limits.parts, least_bytes)
    return max(worst, min(usual, most_bytes // least_bytes * least_bytes))


def can_pack_size(size_bytes: int, *, limits: Limits, least_bytes: int) -> bool:
    """Say whether a dump may be compressed on its way: parts lie in memory, so they may not grow without end."""
    part_bytes = packed_part_size(size_bytes, limits=limits, least_bytes=least_bytes)
    return part_bytes <= min(_PACKED_MOST_BYTES, limits.part_max_bytes)


def _times(size_bytes: int, most_parts: int, unit_bytes: int) -> int:
    return (-(-size_bytes // (most_parts * unit_bytes)) or 1) * unit_bytes


def workers_for(round_trip_s: float, memory_bytes: int | None) -> int:
    """Say how many parts to send at once to a store that answers after `round_trip_s`."""
    if round_trip_s < _FAR_S or (memory_bytes is not None and memory_bytes < _SCANTY_BYTES):
        return _WORKERS
    return _WORKERS_FAR
