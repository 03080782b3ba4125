"""The values that every room speaks: a dump file, what was judged of it, what the store holds of it.

Paths are `str` decoded with `os.fsdecode` (surrogateescape), so any name on the volume survives a round trip.
Sizes are bytes; wall-clock times are seconds since the epoch unless a suffix says otherwise.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, field

from dumpagent.dumps.names import is_possible

_LARGE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Identity:
    """Which bytes a file holds, as far as the directory tells: another value means another dump.

    The device is left out on purpose: it changes when a volume is mounted again or on another node.
    The path too: a claimed dump is renamed. The owner (`uid`) is not: inodes are used again, and anybody can give his own
    file any time. None is of a version that did not note it, and equals no file's.
    """

    inode: int
    size_bytes: int
    mtime_ns: int
    uid: int | None = None

    @classmethod
    def of(cls, status: os.stat_result) -> Identity:
        """Give the identity of the file that has this status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_uid)

    def __str__(self) -> str:
        named = f"{self.inode}-{self.size_bytes}-{self.mtime_ns}"
        return named if self.uid is None else f"{named}-{self.uid}"


@dataclass(frozen=True, slots=True)
class DumpFile:
    """A regular file below the dump root whose name says that it is a heap dump.

    `relpath` is relative to the dump root, with "/" between its parts. `hole_bytes`: of its size, what no block is
    behind; a hint for the order, since some file systems tell it late.
    """

    root: str
    relpath: str
    identity: Identity
    device: int = 0
    uid: int = 0
    hole_bytes: int = field(default=0, compare=False)

    @property
    def is_mostly_holes(self) -> bool:
        """Say whether its size costs its owner next to nothing; no JVM leaves a dump like that."""
        return self.size_bytes > _LARGE_BYTES and self.hole_bytes > 0.9 * self.size_bytes

    @property
    def path(self) -> str:
        return f"{self.root}/{self.relpath}"

    @property
    def size_bytes(self) -> int:
        return self.identity.size_bytes

    @property
    def mtime(self) -> float:
        return self.identity.mtime_ns / 1e9


class State(enum.Enum):
    """What is known of a dump's completeness; the text stands in logs and in the object's metadata."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    WRITING = "writing"
    NOT_A_DUMP = "not-a-dump"
    UNKNOWN = "unknown"


class Cause(enum.Enum):
    """Why the JVM wrote the dump."""

    OOM = "oom"
    REQUEST = "request"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class DumpFacts:
    """What a heap dump tells cheaply, without reading its heap records.

    Unknown parts are None. `dump_time_ms` is the header's time stamp, milliseconds since the epoch.
    Source: HPROF binary format, header and LOAD CLASS / TRACE / START THREAD records.
    """

    format: str | None = None
    id_size: int | None = None
    dump_time_ms: int | None = None
    jvm: str | None = None
    cause: Cause = Cause.UNKNOWN
    classes: int | None = None
    threads: int | None = None
    # The name of the thread that ran out of memory: stands in the heap, so seldom known; "" is a thread without a name.
    oom_thread: str | None = None
    oom_stack: tuple[
        str, ...
    ] = ()  # of the thread that ran out of memory, innermost frame first; at most 1024
    oom_frames: int = 0  # how deep that stack is


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of one dump file now.

    `reason` is one clause for a person. `due` says that it may be claimed and uploaded now; if it is not due,
    `recheck_s` is when a new look can tell more (seconds from now; None: at the next event or scan). `claimable`: it is
    not due, but nobody writes it and its name may be freed. `held_open_s`: for how long a process has had it open for
    writing without writing.
    """

    state: State
    reason: str
    due: bool
    recheck_s: float | None = None
    facts: DumpFacts | None = None
    claimable: bool = False
    held_open_s: float = 0.0


def dump_time_ms(dump: DumpFile, facts: DumpFacts | None) -> int:
    """Give when the dump was made: the time in its header if that can be, else that of its last change."""
    if facts and facts.dump_time_ms and is_possible(facts.dump_time_ms):
        return facts.dump_time_ms
    return max(0, dump.identity.mtime_ns // 1_000_000)
