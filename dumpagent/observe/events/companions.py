"""What becomes of a file beside a dump."""

from __future__ import annotations

from dumpagent.observe.events import Event, Failure, Recovery


class CompanionUploaded(Event, level="info"):
    """A file beside a dump (an error file, a GC log, a flight recording) is in the store."""

    path: str
    key: str
    size_bytes: int
    sent_bytes: int
    seconds: float


class CompanionFailed(Failure, level="warning"):
    """A file beside a dump could not be stored; it is tried again."""

    path: str


class CompanionRecovered(Recovery, level="info"):
    """The file beside a dump could be stored."""

    path: str


class CompanionLeftAlone(Event, level="warning"):
    """A file beside a dump is over COMPANION_MAX_SIZE or COMPANION_MAX_COUNT and is not uploaded; told once."""

    path: str
    size_bytes: int
    reason: str


class CompanionGone(Event, level="warning"):
    """A file beside a dump left the volume before it was stored."""

    path: str
    size_bytes: int


class CompanionDeleted(Event, level="info"):
    """A stored file beside a dump was deleted from the volume to make room."""

    path: str
    key: str
    size_bytes: int
