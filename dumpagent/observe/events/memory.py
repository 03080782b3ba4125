"""What the memory watch tells of."""

from __future__ import annotations

from dumpagent.observe.events import Event, Failure, Recovery


class _OfContainer(Event):
    uid: str
    namespace: str | None = None
    pod: str | None = None
    container: str | None = None
    container_id: str | None = None


class ContainerKilled(_OfContainer, level="error"):
    """The kernel killed a container, or a process in it, for its memory, and no heap dump was left; why, and what to change."""

    cause: str
    reason: str
    hint: str
    limit_bytes: int | None = None
    anonymous_bytes: int | None = None
    page_cache_bytes: int | None = None
    processes: int | None = None
    pressure_percent: float | None = None
    lives_on: bool | None = None


class KillLeftDump(_OfContainer, level="info"):
    """The kernel killed a container for its memory after its JVM had begun a heap dump: see what becomes of the dump."""


class PidsLimitReached(_OfContainer, level="warning"):
    """The kernel refused a thread or process for pids.max: a JVM then throws an OutOfMemoryError and writes no heap dump."""

    limit: int | None = None
    refused: int
    hint: str


class MemoryTight(Event, level="warning"):
    """A container's heap and usual native memory do not fit below its limit: it will be killed before a heap dump."""

    namespace: str
    pod: str
    container: str
    limit_bytes: int
    heap_bytes: int
    native_bytes: int
    reason: str
    hint: str


class MemoryEased(Event, level="info"):
    """A container that was told to be tight is gone, or fits below its limit by now."""

    namespace: str
    pod: str
    container: str


class MemoryLooked(Event, level="debug"):
    """The memory of the watched pods was looked at once."""

    pods: int
    tight: int


class CgroupsUnreadable(Failure, level="error"):
    """The pods' memory cannot be read: kills go unnoticed until it can."""

    path: str | None = None


class CgroupsReadable(Recovery, level="info"):
    """The pods' memory can be read again."""


class PodsUnlisted(Failure, level="warning"):
    """The API server does not list this node's pods: kills are told with the pod's uid and figures only."""


class PodsListed(Recovery, level="info"):
    """The API server lists this node's pods again."""


class KillEventFailed(Failure, level="warning"):
    """The API server takes no Event for a killed container; it is tried again for half a minute, then left out."""

    namespace: str
    pod: str


class KillEventRecovered(Recovery, level="info"):
    """Events for killed containers can be made again."""
