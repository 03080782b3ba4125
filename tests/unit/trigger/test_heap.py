"""What a JVM says of its heap is read for each collector, and turned into an estimate that errs on the safe side."""

from __future__ import annotations

import pytest

from dumpagent.errors import Refused
from dumpagent.trigger.heap import estimate, used_bytes
from dumpagent.trigger.request import Prospect, require_room

MIB = 1 << 20

# As JDK 11 to 25 print them.
SERIAL = """ def new generation   total 9216K, used 2048K [0x00000000fec00000, 0x00000000ff600000)
  eden space 8192K,  25% used [0x00000000fec00000, 0x00000000fee00000, 0x00000000ff400000)
 tenured generation   total 10240K, used 8192K [0x00000000ff600000, 0x0000000100000000)
   the space 10240K,  80% used [0x00000000ff600000, 0x00000000ffe00000)
 Metaspace       used 3000K, committed 3200K, reserved 1056768K
  class space    used 300K, committed 384K, reserved 1048576K"""
G1 = """ garbage-first heap   total 262144K, used 10240K [0x00000000f0000000, 0x0000000100000000)
  region size 1024K, 5 young (5120K), 0 survivors (0K)
 Metaspace       used 3000K, committed 3200K, reserved 1056768K"""
G1_25 = (
    " garbage-first heap   total reserved 262144K, committed 16384K, used 10240K [0x00000000f0000000, 0x1)\n"
)
PARALLEL = """ PSYoungGen      total 9216K, used 2048K [0x00000000ff600000, 0x0000000100000000)
 ParOldGen       total 20480K, used 8192K [0x00000000fec00000, 0x00000000fee00000)"""
ZGC = " ZHeap           used 10M, capacity 64M, max capacity 256M\n Metaspace       used 3000K, committed 1K"
SHENANDOAH = "Shenandoah Heap\n 256M max, 256M soft max, 256M committed, 10240K used\n 512 x 512K regions"


@pytest.mark.parametrize("said", [SERIAL, G1, G1_25, PARALLEL, ZGC, SHENANDOAH])
def test_the_used_heap_of_each_collector(said: str) -> None:
    """All generations count, metaspace does not."""
    assert used_bytes(said) == 10 * MIB


@pytest.mark.parametrize(
    "said", ["", "Unknown diagnostic command", "used", " Metaspace  total 1K, used 3000K"]
)
def test_what_tells_no_heap(said: str) -> None:
    """None, not zero: zero would fit anywhere."""
    assert used_bytes(said) is None


def test_a_volume_without_room_for_two_dumps_takes_none() -> None:
    """Two dumps of up to one and a half times the heap each."""
    cost = estimate(100 * MIB)
    assert (cost.dump_bytes, cost.needed_bytes) == (150 * MIB, 300 * MIB)
    require_room(Prospect("JDK", cost, True, 300 * MIB))
    with pytest.raises(Refused, match=r"299.* free, and two such dumps may take 300"):
        require_room(Prospect("JDK", cost, True, 299 * MIB))


def test_the_pause_grows_with_the_heap() -> None:
    """A range, never one figure."""
    small, large = estimate(100 * MIB), estimate(10_000 * MIB)
    assert small.shortest_pause_s < small.longest_pause_s < large.longest_pause_s
    assert large.longest_pause_s > 60
