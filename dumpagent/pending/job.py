"""One run over the dumps that wait: each is claimed, fetched, analyzed, and its reports are stored beside it."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from isal import isal_zlib

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.fetch.stream import Damaged, Summed, read_object
from dumpagent.kernel.reading import OpenFile
from dumpagent.pending.analysis import AnalysisOutcome
from dumpagent.pending.attempts import (
    Attempt,
    Eligibility,
    Ending,
    claim_key,
    eligibility_of,
    next_number,
)
from dumpagent.pending.claims import claim, expires, note_ending, remove_notes
from dumpagent.pending.task import HTML_NAME, JSON_NAME, Task
from dumpagent.pending.waiting import HTML_ENDING, JSON_ENDING, WaitingDump, waiting_dumps
from dumpagent.store.protocol import Body, Occupied, Store

_SPARE_BYTES = 64 << 20
_SUMMARY_BYTES = 1 << 20


class DoesNotFit(DumpagentError):
    """The temporary directory has no room for the dump."""


class _MustEnd(Exception):
    """The job is to end."""


@dataclass(frozen=True, slots=True)
class Terms:
    """How a job works. `limit_bytes`: memory of one analysis; `deadline`: on the monotonic clock; `job` names it to others.

    `task` has what all dumps have in common. `need_of` gives the memory for so many objects and bytes of a heap.
    """

    prefix: str
    version: str
    job: str
    deadline: float
    task: Task
    need_of: Callable[[int, int], int]


@dataclass(slots=True)
class Ran:
    """What a job has done, in paths of dumps."""

    analyzed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    too_large: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    given_up: list[str] = field(default_factory=list)
    no_heap: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


class PendingJob:
    """Analyzes what waits, newest first. `run` analyzes one dump, within so many seconds; `tell` hears a line about each."""

    def __init__(
        self,
        store: Store,
        terms: Terms,
        *,
        run: Callable[[OpenFile, Task, float], AnalysisOutcome],
        tell: Callable[[str], None],
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._terms, self._run, self._tell, self._stop = store, terms, run, tell, stop
        self._clock, self._now = clock, now
        self.ran = Ran()

    def run(self, *, since: float | None) -> Ran:
        """Analyze what waits, until nothing is left, the deadline comes or a stop.

        A dump that fails costs itself alone. Raises Unreachable; Refused where the bucket cannot be listed or written.
        """
        waiting = waiting_dumps(self._store, prefix=self._terms.prefix, since=since)
        if waiting:
            self._tell(f"{len(waiting):,} dumps without an analysis")
        for each in waiting:
            if self._is_over():
                self.ran.left.append(each.dump.path)
            else:
                self._take(each)
        return self.ran

    def _is_over(self) -> bool:
        return self._stop.is_set() or self._clock() >= self._terms.deadline

    # -- whether ------------------------------------------------------------------------------------------------

    def _take(self, waiting: WaitingDump) -> None:
        path, terms = waiting.dump.path, self._terms
        last = waiting.attempts[-1].claim if waiting.attempts else None
        eligibility = eligibility_of(
            waiting.attempts,
            version=terms.version,
            limit_bytes=self._memory_bytes,
            is_live=last is not None and self._now() < expires(self._store, last),
        )
        match eligibility:
            case Eligibility.CLAIMED:
                self.ran.elsewhere.append(path)
            case Eligibility.NO_HEAP:
                self.ran.no_heap.append(path)
            case Eligibility.TOO_LARGE:
                self._skip_large(path, waiting.attempts[-1].need_bytes or 0)
            case Eligibility.GIVEN_UP:
                self.ran.given_up.append(path)
                self._tell(
                    f"given up: {path}: {len(waiting.attempts)} attempts ended without a report; analyze it by hand"
                )
            case Eligibility.FREE:
                need = self._told_need(waiting)
                if need > self._memory_bytes:
                    self._skip_large(path, need)
                else:
                    self._claim(waiting)

    @property
    def _memory_bytes(self) -> int:
        return 1 << 62 if self._terms.task.spill else self._terms.task.limit_bytes

    def _skip_large(self, path: str, need: int) -> None:
        self.ran.too_large.append(path)
        self._tell(
            f"too large: {path} needs about {need / 2**30:.1f} GiB of memory,"
            f" {self._terms.task.limit_bytes / 2**30:.1f} GiB are at hand"
        )

    def _told_need(self, waiting: WaitingDump) -> int:
        """Give what memory the summary beside the dump lets expect, before anything is fetched; 0 if there is none."""
        if waiting.summary is None:
            return 0
        try:
            told = json.loads(b"".join(self._store.read(waiting.summary.key, length=_SUMMARY_BYTES)))
            return self._terms.need_of(int(told["objects"]), int(told["shallow_bytes"]))
        except (Refused, ValueError, KeyError, TypeError):
            return 0

    # -- one dump -----------------------------------------------------------------------------------------------

    def _claim(self, waiting: WaitingDump) -> None:
        path, prefix = waiting.dump.path, self._terms.prefix
        number = next_number(waiting.attempts)
        seconds = max(1.0, self._terms.deadline - self._clock())
        if not claim(self._store, path, number, prefix=prefix, seconds=seconds, job=self._terms.job):
            self.ran.elsewhere.append(path)
            return
        try:
            if self._store.look(waiting.dump.key + JSON_ENDING) is not None:
                self.ran.elsewhere.append(path)  # another job was quicker between our listing and our claim
                return
            self._analyze(waiting, number)
        except _MustEnd:
            self.ran.left.append(path)
        finally:
            remove_notes(self._store, [claim_key(path, number, prefix=prefix)])

    def _analyze(self, waiting: WaitingDump, number: int) -> None:
        """Analyze a claimed dump, and note how that ended if there is no report. Raises _MustEnd, Refused, Unreachable."""
        path, began = waiting.dump.path, self._clock()
        try:
            outcome = self._outcome(waiting)
        except DoesNotFit as error:
            self._failed(path, f"{error}")
            return  # another machine may have the room
        except Unreachable:
            raise  # the store's fault is none of the dump's
        except (DumpagentError, OSError) as error:
            outcome = AnalysisOutcome(error=str(error))
        if outcome.stopped:
            raise _MustEnd
        if outcome.suspect is not None:
            self.ran.analyzed.append(path)
            self._tell(f"analyzed: {path} in {self._clock() - began:.0f} s: {outcome.suspect}")
            remove_notes(self._store, waiting.notes)
            return
        if outcome.need_bytes is not None:
            self._skip_large(path, outcome.need_bytes)
            ending = Ending.TOO_LARGE
        elif outcome.no_heap is not None:
            self.ran.no_heap.append(path)
            self._tell(f"nothing to analyze: {path}: {outcome.no_heap}")
            ending = Ending.NO_HEAP
        else:
            self._failed(path, outcome.error or "no answer")
            ending = Ending.FAILED
        ended = Attempt(number, None, ending, self._terms.version, outcome.need_bytes)
        reason = outcome.error or outcome.no_heap or ""
        note_ending(self._store, path, ended, reason, prefix=self._terms.prefix)

    def _failed(self, path: str, why: str) -> None:
        self.ran.failed.append(path)
        self._tell(f"failed: {path}: {why}")

    def _outcome(self, waiting: WaitingDump) -> AnalysisOutcome:
        """Fetch, analyze and store the reports. Raises _MustEnd, DumpagentError, OSError."""
        dump = waiting.dump
        with tempfile.TemporaryDirectory(prefix="dumpagent-analysis-") as folder:
            free = os.statvfs(folder)
            if free.f_bavail * free.f_frsize < dump.size_bytes + _SPARE_BYTES:
                raise DoesNotFit(
                    f"{folder.rpartition('/')[0]} has no room for its {dump.size_bytes:,} bytes",
                    hint="name another directory with the variable TMPDIR",
                )
            with tempfile.TemporaryFile(dir=folder) as file:
                self._fetch(waiting, file.fileno())
                if self._is_over():
                    raise _MustEnd  # the fetching took the time: that says nothing of the analysis
                task = self._terms.task
                asked = Task(
                    name=dump.path, size_bytes=dump.size_bytes, folder=folder, parent=os.getpid(),
                    limit_bytes=task.limit_bytes, rows=task.rows, strings=task.strings, show_text=task.show_text,
                    spill=task.spill,
                )  # fmt: skip
                opened = OpenFile(file.fileno(), dump.key)
                outcome = self._run(opened, asked, max(1.0, self._terms.deadline - self._clock()))
            if outcome.suspect is not None:
                # The page before the values: where those are, the dump counts as analyzed.
                self._put(dump.key + HTML_ENDING, f"{folder}/{HTML_NAME}")
                self._put(dump.key + JSON_ENDING, f"{folder}/{JSON_NAME}")
            return outcome

    def _fetch(self, waiting: WaitingDump, fd: int) -> None:
        dump = waiting.dump
        chunks = Summed(read_object(self._store, dump.stored, pause=self._pause))
        for chunk in chunks:
            if self._stop.is_set():
                raise _MustEnd
            written = memoryview(chunk)
            while written:
                written = written[os.write(fd, written) :]
        wanted = dump.checksum
        if wanted and not wanted.unpacked and wanted.crc32 != chunks.crc32:
            raise Damaged(
                f"its bytes sum to {chunks.crc32:08x}, stored were {wanted.crc32:08x}",
                hint="`dumpagent verify` tells more",
            )

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise _MustEnd

    def _put(self, key: str, path: str) -> None:
        with open(path, "rb") as file:
            content = file.read()
        try:
            self._store.put(key, Body(content, isal_zlib.crc32(content)), {})
        except Occupied:
            pass  # the other job's, of the same dump: it says the same
