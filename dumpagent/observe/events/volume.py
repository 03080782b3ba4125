"""What is told of the volume as upload mode sees it."""

from __future__ import annotations

from dumpagent.observe.events import Event, Failure, Recovery


class ScanFinished(Event, level="debug"):
    """One scan of the dump directory ended; what it took and found."""

    path: str
    dumps: int
    unreadable: int
    seconds: float


class ScanFailed(Failure, level="error"):
    """Part of the dump directory could not be looked at; dumps may lie there."""

    path: str


class ScanRecovered(Recovery, level="info"):
    """All of the dump directory can be looked at again."""

    path: str


class NameTaken(Event, level="warning"):
    """Another user (`uid`) had made a name of the agent's on the volume; it was moved aside (`path`), or is not used."""

    path: str
    uid: int
    hint: str


class UsersMapped(Event, level="warning"):
    """The volume gives the agent's files another owner (`uid`) than the agent's user, as NFS does with root_squash."""

    path: str
    uid: int
    hint: str


class OwnerCrowded(Failure, level="warning"):
    """A user (`uid`) has more dumps at once than are taken, directories too deep, or links to others' files: they wait."""

    path: str
    uid: int
    count: int


class OwnerUncrowded(Recovery, level="info"):
    """All files of that user are looked at again."""

    path: str
    uid: int


class FileHeldOpen(Failure, level="warning"):
    """A process of the user `uid` has held this file open for ten minutes and writes nothing: it blocks a dump's name."""

    path: str
    uid: int
    size_bytes: int


class FileReleased(Recovery, level="info"):
    """That file is written again, or no process has it open any more."""

    path: str
    uid: int


class FileLeftAlone(Event, level="warning"):
    """A memory image lies below DUMP_ROOT that is not taken for a heap dump; told once."""

    path: str
    size_bytes: int
    reason: str
    hint: str


class DirectorySkipped(Event, level="debug"):
    """A scan does not look into this directory: a snapshot, another file system, a read-only mount, EXCLUDE; told once."""

    path: str
    reason: str


class LeftAloneCounted(Event, level="debug"):
    """What the last scan left alone: core files, files whose first bytes cannot be read, directories."""

    cores: int
    unreadable: int
    directories: int


class SpaceMeasured(Event, level="debug"):
    """How much space the volume has, and how much of it is free."""

    path: str
    free_bytes: int
    size_bytes: int


class VolumeAway(Failure, level="error"):
    """The volume is not mounted at DUMP_ROOT; nothing is concluded from that, and its dumps wait for it."""

    path: str


class VolumeBack(Recovery, level="info"):
    """The volume is mounted at DUMP_ROOT again."""

    path: str


class VolumeFull(Failure, level="error"):
    """Less than LOCAL_MIN_FREE is free and nothing may be deleted; the next dump may not fit."""

    path: str
    free_bytes: int
    total_bytes: int


class VolumeRoomy(Recovery, level="info"):
    """There is room on the volume again."""

    path: str


class StateUnwritable(Failure, level="warning"):
    """Receipts cannot be written; after a restart the store is asked about each dump."""

    path: str


class StateWritable(Recovery, level="info"):
    """Receipts can be written again."""

    path: str


class ReceiptsPruned(Event, level="info"):
    """Receipts of dumps that left the disk long ago were dropped."""

    count: int
    oldest: str


class OtherAgentFound(Failure, level="error"):
    """Another agent works on this volume; this one waits for its end."""


class OtherAgentGone(Recovery, level="info"):
    """The other agent is gone; this one begins."""


class WatchImpaired(Event):
    """Some wake-ups (inotify) do not come; the scan every WATCH_INTERVAL finds what they miss."""

    path: str
    reason: str
    hint: str


class WatchUnavailable(WatchImpaired, level="warning"):
    """There are no wake-ups: dumps are found by the scan every WATCH_INTERVAL alone."""


class WatchLimited(WatchImpaired, level="warning"):
    """Some directories send no wake-ups: the limit of watches is used up."""


class WatchOverflowed(WatchImpaired, level="warning"):
    """Wake-ups came faster than they were read and some are lost: everything is scanned."""


class WatchRemote(WatchImpaired, level="info"):
    """The volume is on a network: what other machines write there sends no wake-ups here."""
