"""Why the kernel killed a container, as far as its last minute tells; pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from dumpagent.memory_watch.cgroups import Figures
from dumpagent.memory_watch.heap import Heap
from dumpagent.units import MIB


class KillCause(enum.Enum):
    """What took the memory."""

    HEAP_ABOVE_LIMIT = "heap_above_limit"
    NATIVE_MEMORY = "native_memory"
    OTHER_PROCESS = "other_process"
    SHARED_MEMORY = "shared_memory"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Explained:
    """A cause, the sentence with the figures behind it, and what to change."""

    cause: KillCause
    reason: str
    hint: str


def explain(last_minute: Sequence[Figures], heap: Heap | None, *, lives_on: bool) -> Explained:
    """Explain a kill by the figures of the container's last minute, oldest first (at least one).

    `lives_on`: the container still runs, so that the kernel took a process beside its first one.
    """
    peak = max(last_minute, key=lambda figures: figures.anonymous + figures.shared)
    limit = peak.limit
    most = max(figures.processes for figures in last_minute)
    least = min(figures.processes for figures in last_minute if figures.processes) if most else 0
    told = f"limit {_mib(limit)}, " if limit else "no limit of its own (the node ran out of memory), "
    told += f"heap at most {_mib(heap.most_bytes)} ({heap.option}), " if heap else "heap size unknown, "
    told += f"anonymous memory {_mib(peak.anonymous)}"
    # The kernel kills only when nothing can be given back: what is no file in memory was anonymous memory by then.
    taken = max(peak.anonymous, (limit or 0) - peak.shared)
    told += f", shared memory {_mib(peak.shared)}" if peak.shared >= 16 * MIB else ""
    told += (
        f", slowed down from memory.high {_mib(peak.high)} on"
        if peak.high and peak.current >= peak.high
        else ""
    )
    more_processes = most > 1 and (lives_on or most > least)
    if more_processes and not (heap and limit and heap.most_bytes >= limit):
        return Explained(
            KillCause.OTHER_PROCESS,
            f"{told}: {most} processes shared the limit, and one beside the first took the memory"
            + ("; the container goes on without it" if lives_on else ""),
            "give the other process a container (and a limit) of its own, or raise the limit by what it takes",
        )
    if heap and limit and heap.most_bytes + heap.native_bytes > limit:
        return Explained(
            KillCause.HEAP_ABOVE_LIMIT,
            f"{told}: heap and usual native memory ({_mib(heap.native_bytes)}) do not fit below the limit, so the kernel was first",
            _fitting(heap, limit),
        )
    if peak.shared > peak.anonymous:
        return Explained(
            KillCause.SHARED_MEMORY,
            f"{told}: files in memory (tmpfs, emptyDir with medium Memory, /dev/shm) took the limit",
            "write these files to a disk, or raise the limit by their size",
        )
    if heap and taken > heap.most_bytes:
        return Explained(
            KillCause.NATIVE_MEMORY,
            f"{told}: even a full heap leaves {_mib(taken - heap.most_bytes)} to native memory "
            "(direct buffers, threads, classes, malloc)"
            + (
                ""
                if heap.direct_bytes
                else "; MaxDirectMemorySize is not set, so direct buffers may take as much as the heap"
            ),
            "lower MaxRAMPercentage or raise the limit; -XX:MaxDirectMemorySize bounds direct buffers, and "
            "-XX:NativeMemoryTracking=summary with `jcmd 1 VM.native_memory` names the rest",
        )
    return Explained(
        KillCause.UNKNOWN,
        f"{told}: this does not tell whether heap or native memory grew"
        + (f"; {most} processes shared the limit" if most > 1 else ""),
        "set -Xmx or -XX:MaxRAMPercentage in the pod's spec (JAVA_TOOL_OPTIONS), so that the next kill can be explained",
    )


def explain_unseen(heap: Heap | None, limit: int | None) -> Explained:
    """Explain the kill of a container that lived for less than the time between two looks, by its pod's spec alone."""
    told = "it lived for less than the time between two looks"
    if not heap or not limit:
        return Explained(KillCause.UNKNOWN, told, "")
    told += f": limit {_mib(limit)}, heap at most {_mib(heap.most_bytes)} ({heap.option})"
    if heap.most_bytes + heap.native_bytes > limit:
        return Explained(
            KillCause.HEAP_ABOVE_LIMIT,
            f"{told}: heap and usual native memory ({_mib(heap.native_bytes)}) do not fit below the limit",
            _fitting(heap, limit),
        )
    return Explained(
        KillCause.NATIVE_MEMORY,
        f"{told}: even a full heap leaves {_mib(limit - heap.most_bytes)} to native memory "
        "(direct buffers, threads, classes, malloc) or to other processes",
        "lower MaxRAMPercentage or raise the limit; -XX:NativeMemoryTracking=summary names what native memory holds",
    )


def _fitting(heap: Heap, limit: int) -> str:
    return (
        f"lower the heap (-Xmx, MaxRAMPercentage) to at most {_mib(_heap_that_fits(limit))}, or raise the limit to "
        f"{_mib(heap.most_bytes + heap.native_bytes)}"
    )


def _heap_that_fits(limit: int) -> int:
    return max(0, (limit - 64 * MIB) * 16 // 17)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.0f} MiB"
