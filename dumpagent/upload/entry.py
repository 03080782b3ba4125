"""One dump on the volume, with how far it has come."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from dumpagent.dumps.model import DumpFile, Verdict
from dumpagent.upload.oom_thread import OomThreadSearch


class Stage(enum.Enum):
    """How far a dump has come."""

    WAITING = "waiting"  # not finished, as far as is known
    READY = "ready"  # may be uploaded
    SENDING = "sending"
    STORED = "stored"


@dataclass(slots=True)
class Entry:
    """One dump on the volume. `not_before` is when it may be tried again, `judge_at` when a look can tell more; both
    monotonic. `number` is the scan that found it first, `scan` the last one that did."""

    dump: DumpFile
    stage: Stage = Stage.WAITING
    verdict: Verdict | None = None
    attempts: int = 0
    victim: OomThreadSearch | None = None
    not_before: float = 0.0
    sending_since: float = 0.0
    waiting_since: float = 0.0
    judge_at: float = 0.0
    number: int = 0
    scan: int = 0
    volume: Hashable = None  # on which it was found

    @property
    def owner(self) -> int:
        return self.dump.uid

    @property
    def folder(self) -> tuple[int, str]:
        """Give the owner with the directory in the root: applications that share a user are told apart by it."""
        return self.dump.uid, self.dump.relpath.partition("/")[0] if "/" in self.dump.relpath else ""


@dataclass(frozen=True, slots=True)
class Counts:
    """The table in numbers, all taken at one moment; `oldest_pending_s` is 0 if none is pending."""

    seen: int = 0
    uploaded: int = 0
    failed: int = 0
    pending: int = 0
    oldest_pending_s: float = 0.0
    writing: int = 0  # pending: not finished, as far as is known
    queued: int = 0  # pending: finished, and its turn comes
    sending: int = 0
    retrying: int = 0  # pending: an attempt failed, and there will be another


@dataclass(slots=True)
class Changes:
    """What a scan changed: dumps that are new, and those that vanished before they were stored."""

    new: list[DumpFile] = field(default_factory=list)
    lost: list[DumpFile] = field(default_factory=list)
    left_out: Counter[int] = field(default_factory=Counter)  # by owner: those who have too many at once
