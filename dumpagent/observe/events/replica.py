"""What becomes of a dump at the second destination (S3_REPLICA_BUCKET)."""

from __future__ import annotations

from dumpagent.observe.events import Event, Failure, Recovery
from dumpagent.observe.events.dumps import DumpStored


class ReplicaUploaded(DumpStored, level="info"):
    """The replica holds the dump too and has confirmed it."""


class ReplicaAlreadyStored(DumpStored, level="info"):
    """The replica held this very dump before; nothing was sent."""


class ReplicaWouldUpload(Event, level="info"):
    """`--dry-run`: what an upload to the replica would do with this dump."""

    path: str
    key: str
    size_bytes: int
    verdict: str
    action: str


class ReplicaLost(Event, level="warning"):
    """The dump left the volume before the replica had it: the replica lacks it for good."""

    path: str
    size_bytes: int


class ReplicaAttemptFailed(Event, level="debug"):
    """One attempt to store a dump in the replica failed; the first of a row is told as a trouble too."""

    path: str
    fault: str  # store or dump
    error: str


class ReplicaUploadFailed(Failure, level="error"):
    """This dump could not be stored in the replica; it stays on the volume and is tried again."""

    path: str
    next_try_seconds: float | None = None


class ReplicaUploadRecovered(Recovery, level="info"):
    """A dump that could not be stored in the replica before is stored there now."""

    path: str


class ReplicaAnswered(Event, level="info"):
    """At the start: the replica's bucket is there and lets us in."""

    store: str


class ReplicaChecked(Event, level="debug"):
    """The replica was asked, without a dump, whether it can be used."""

    store: str
    usable: bool


class ReplicaFailed(Failure, level="error"):
    """The replica cannot be used; dumps go to the first destination meanwhile, and stay on the volume until both have them."""

    store: str
    pending: int | None = None


class ReplicaRecovered(Recovery, level="info"):
    """The replica can be used again."""

    store: str


class ReplicaObjectMissing(Event, level="error"):
    """The replica no longer holds a dump that it had confirmed; it is uploaded there again."""

    path: str
    key: str
    store: str


class ReplicaCompanionUploaded(Event, level="info"):
    """A file beside a dump is in the replica too."""

    path: str
    key: str
    size_bytes: int
    sent_bytes: int
    seconds: float


class ReplicaCompanionFailed(Failure, level="warning"):
    """A file beside a dump could not be stored in the replica; it is tried again."""

    path: str


class ReplicaCompanionRecovered(Recovery, level="info"):
    """The file beside a dump could be stored in the replica."""

    path: str


class ReplicaPassFinished(Event, level="info"):
    """`--once` is done with the replica; how many dumps took which way."""

    uploaded: int
    already_stored: int
    waiting: int
    failed: int
    seconds: float
    store: str
