"""What becomes of a dump."""

from __future__ import annotations

from dumpagent.observe.events import Event, Failure, Recovery


class DumpFound(Event, level="info"):
    """A heap dump was seen for the first time."""

    path: str
    size_bytes: int


class DumpWaiting(Event, level="info"):
    """`--once` leaves this dump for later, and says why."""

    path: str
    reason: str


class DumpClaimed(Event, level="info"):
    """The dump was renamed, so that the JVM's next dump finds its name free."""

    path: str
    claimed_path: str
    verdict: str


class ClaimFailed(Failure, level="warning"):
    """The dump could not be renamed; it is uploaded under the name that its JVM needs again."""

    path: str


class ClaimRecovered(Recovery, level="info"):
    """Dumps can be renamed again."""

    path: str


class DumpStored(Event):
    """What is told of a dump that the store holds."""

    path: str
    key: str
    size_bytes: int
    sent_bytes: int
    seconds: float
    delay_seconds: float  # since the last write of the dump's JVM
    verdict: str
    reason: str
    crc32: str
    verified: bool
    hint: str | None = None
    jvm: str | None = None
    cause: str | None = None
    dump_time: str | None = None  # RFC 3339, UTC, seconds
    oom_thread: str | None = None
    oom_stack: tuple[str, ...] | None = None
    resumed: bool | None = None


class DumpUploaded(DumpStored, level="info"):
    """The store holds the dump and has confirmed it."""


class DumpSummarised(Event, level="info"):
    """What most likely holds the memory of a stored dump, its largest classes, and where it ran out, in three lines,
    with a fourth where a dump of the same workload came before: what grew.

    `report` is the key of the object that has all of it; unset where it could not be stored. `budget_ended`: the CPU
    time was over before all was looked at.
    """

    path: str
    key: str
    report: str | None
    lines: tuple[str, ...]
    size_bytes: int
    crc32: str
    verdict: str
    cpu_seconds: float
    dump_time: str | None = None
    budget_ended: bool = False


class SummarySkipped(Event, level="info"):
    """This stored dump gets no summary, and why; the dump itself is safe, and `dumpagent analyze` says more."""

    path: str
    reason: str
    key: str | None = None


class SummaryFailed(Failure, level="warning"):
    """No summary could be made, or its report could not be stored. The dump itself is safe."""

    path: str
    key: str | None = None


class SummaryRecovered(Recovery, level="info"):
    """Summaries are made and stored again."""

    path: str


class DumpAlreadyStored(DumpStored, level="info"):
    """The store held this very dump before; nothing was sent."""


class DumpWouldUpload(Event, level="info"):
    """`--dry-run`: what an upload would do with this dump."""

    path: str
    key: str
    size_bytes: int
    verdict: str
    action: str


class DumpChanged(Event, level="info"):
    """The dump was written to while it was uploaded; it is judged again."""

    path: str
    error: str
    hint: str | None = None


class DumpGone(Event, level="warning"):
    """The dump vanished from the disk before it was stored: it is lost."""

    path: str
    size_bytes: int


class AttemptFailed(Event, level="debug"):
    """One attempt to store a dump failed; the first of a row is told as a trouble too."""

    path: str
    fault: str  # store or dump
    error: str


class UploadFailed(Failure, level="error"):
    """This dump could not be stored; it stays pending and is tried again."""

    path: str
    next_try_seconds: float | None = None


class UploadRecovered(Recovery, level="info"):
    """A dump that could not be stored before is stored now."""

    path: str


class DumpDeleted(Event, level="info"):
    """A dump that the store had just confirmed was deleted from the volume (LOCAL_KEEP)."""

    path: str
    key: str
    size_bytes: int


class DeleteFailed(Failure, level="warning"):
    """Confirmed dumps cannot be deleted from the volume; they stay."""

    path: str


class DeleteRecovered(Recovery, level="info"):
    """Confirmed dumps can be deleted again."""

    path: str


class ObjectMissing(Event, level="error"):
    """The store no longer holds a dump that it had confirmed; it is uploaded again."""

    path: str
    key: str
    store: str


class PassFinished(Event, level="info"):
    """`--once` is done; how many dumps took which way."""

    uploaded: int
    already_stored: int
    waiting: int
    failed: int
    seconds: float
    store: str


class PassInterrupted(Event, level="warning"):
    """`--once` was stopped before it was done."""

    hint: str
    left: int | None = None
