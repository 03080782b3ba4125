"""What `dumpagent trigger` tells of."""

from __future__ import annotations

from dumpagent.observe.events import Event


class _OfJvm(Event):
    namespace: str
    pod: str
    pid: int
    path: str


class HeapDumpRequested(_OfJvm, level="info"):
    """A running JVM is asked for a heap dump, and stands still while it writes it; the figures are estimates."""

    live: bool
    used_bytes: int
    dump_bytes: int
    longest_pause_seconds: float


class RequestedDumpWritten(_OfJvm, level="info"):
    """The JVM says that it has written the heap dump; the uploader judges it like any other."""

    seconds: float
    answer: str


class DumpRequestFailed(_OfJvm, level="warning"):
    """The JVM was asked for a heap dump and did not write it, or has not said so in time."""

    error: str
    hint: str
    seconds: float
