"""What mount mode tells."""

from __future__ import annotations

from collections.abc import Sequence

from dumpagent.observe.events import Event, Failure, Recovery


class MountSeen(Event):
    """The target shows the volume at the start."""

    source: str
    path: str


class MountLoss(Event):
    """The target no longer shows the volume; `stack` says what is mounted there, from bottom to top."""

    path: str
    stack: Sequence[str]
    hint: str


class BackendFailure(Failure):
    """A write test failed at `step`."""

    path: str
    step: str


class MountAdopted(MountSeen, level="info"):
    """At the start the target showed the volume already; it was kept."""


class MountBound(MountSeen, level="info"):
    """The volume was bound to the target."""


class MountLost(MountLoss, level="warning"):
    """Nothing is mounted at the target: dumps land on the node's own disk."""


class MountWrong(MountLoss, level="warning"):
    """Something other than the volume is mounted at the target."""


class MountStacked(MountLoss, level="warning"):
    """The volume is mounted at the target more than once."""


class MountReadOnly(MountLoss, level="error"):
    """The mount at the target is read-only: dumps fail."""


class MountRestored(Event, level="info"):
    """The target shows the volume again."""

    finding: str
    path: str
    seconds: float


class RemountFailed(Failure, level="error"):
    """The target cannot be made to show the volume; it is tried again."""

    path: str


class RemountRecovered(Recovery, level="info"):
    """Mounting works again."""

    path: str


class MountUnshared(Event, level="warning"):
    """The target is not in a shared mount: no other container will see the volume there."""

    path: str
    hint: str


class MountSetAside(Event, level="error"):
    """The volume takes no writes and was taken off the target: dumps land on the node's own disk until it does."""

    path: str
    finding: str
    error: str
    hint: str


class MountReleased(Event, level="info"):
    """UNMOUNT_ON_EXIT: the target was unmounted."""

    path: str
    layers: int


class TableUnreadable(Failure, level="error"):
    """What is mounted cannot be known; nothing is changed by it."""

    path: str


class TableReadable(Recovery, level="info"):
    """What is mounted is known again."""

    path: str


class WriteTested(Event, level="debug"):
    """One write test of the volume ended, with its outcome and time."""

    outcome: str
    step: str
    seconds: float
    through_target: bool


class WriteProven(Event, level="info"):
    """A write through the target reached the volume; .ready stands."""

    path: str


class BackendFull(BackendFailure, level="error"):
    """The volume is full: dumps will be cut off. .ready is withdrawn."""


class BackendReadOnly(BackendFailure, level="error"):
    """The volume's file system refuses writes as read-only."""


class BackendRefusing(BackendFailure, level="error"):
    """The volume works, but this agent may not write to it."""


class BackendDead(BackendFailure, level="error"):
    """The volume answers with an error that means it is gone."""


class BackendMissing(BackendFailure, level="error"):
    """The volume's directory is not there."""


class BackendStale(BackendFailure, level="warning"):
    """The volume works, but the target shows an old or another one."""


class BackendHung(BackendFailure, level="error"):
    """The volume does not answer; who writes to it waits too."""


class BackendUnknown(BackendFailure, level="error"):
    """The write test ended in a way that says nothing certain."""


class BackendRecovered(Recovery, level="info"):
    """Writes reach the volume again."""

    path: str
    finding: str


class FileRescued(Event, level="info"):
    """A file from the node's own disk, written while the mount was away, is in the volume now."""

    path: str
    to: str
    size_bytes: int
    seconds: float


class RescueFailed(Failure, level="error"):
    """A file on the node's own disk cannot be moved into the volume yet."""

    path: str


class RescueRecovered(Recovery, level="info"):
    """Files can be rescued again."""

    path: str


class StaleReadyRemoved(Event, level="warning"):
    """The node's own directory held a .ready, which said what was not so."""

    path: str
