"""How large a heap dump will be and how long the JVM will stand still for it, estimated from its heap; pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dumpagent.units import GIB, KIB, MIB

_UNITS = {"B": 1, "K": KIB, "M": MIB, "G": GIB}
# Source: JDK, print_on of each heap: "total 9216K, used 812K" for each generation or the whole of G1 (25 says "total
# reserved"), "ZHeap used 24M", "256M committed, 5120K used" of Shenandoah. Metaspace is no heap.
_USED = re.compile(
    r"^(?! *(?:Metaspace|class space)).*?(?:total\b.*?|ZHeap +)used (\d+)([BKMG])\b", re.MULTILINE
)
_USED_BEHIND = re.compile(r"^.*committed, (\d+)([BKMG]) used", re.MULTILINE)
# A dump spends 25 bytes on each object beside its fields, and 8 on a reference that takes 4 in the heap: a list node
# of 24 bytes takes 49, an array of bytes as much as in the heap. Source: HPROF format, INSTANCE DUMP.
_DUMP_PER_HEAP = 1.5
_ROOM_FOR_DUMPS = 2  # JDK 22 and later need it twice, and the JVM may run out of memory right behind ours
# Measured on JDK 11 to 25 with five collectors and 150 MiB of heap: 34 to 180 MiB a second, on a busy machine; left wider.
_FASTEST_BYTES_PER_S, _SLOWEST_BYTES_PER_S = 300 * MIB, 20 * MIB


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a dump of a heap will cost; every figure but `used_bytes` is an estimate. Seconds and bytes."""

    used_bytes: int
    dump_bytes: int
    needed_bytes: int
    shortest_pause_s: float
    longest_pause_s: float


def used_bytes(heap_info: str) -> int | None:
    """Give the used heap out of the answer to GC.heap_info, in bytes; None if it does not tell."""
    found = _USED.findall(heap_info) or _USED_BEHIND.findall(heap_info)[:1]
    return sum(int(number) * _UNITS[unit] for number, unit in found) if found else None


def estimate(used: int) -> Estimate:
    """Give the estimate for a heap of which `used` bytes are in use."""
    dump = int(used * _DUMP_PER_HEAP)
    return Estimate(
        used, dump, _ROOM_FOR_DUMPS * dump, dump / _FASTEST_BYTES_PER_S, max(1.0, dump / _SLOWEST_BYTES_PER_S)
    )
