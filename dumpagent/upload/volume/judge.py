"""Says what is known of a dump's completeness, and whether it may be claimed and uploaded now.

Two independent witnesses: the kernel on whether anybody has the file open for writing, the file on whether its
records tile it up to END. Only where they agree is a dump complete at once; where one is silent, quiet time is asked.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from dumpagent.dumps.files import find, open_dump, segment_files_of
from dumpagent.dumps.kind import HEAD_BYTES, PACKED_HEAD_BYTES, FileKind, kind_of, packed_kind
from dumpagent.dumps.model import DumpFacts, DumpFile, Identity, State, Verdict
from dumpagent.dumps.names import base_of_segment
from dumpagent.hprof.look import Look
from dumpagent.hprof.walk import Shape, Walked
from dumpagent.kernel.lease import WriterState, lease_stands, release_lease, take_read_lease
from dumpagent.kernel.reading import OpenFile

# A look goes on for this long at most; a file that is made to take longer is looked at again and again instead.
_LOOK_S = 0.3
# The stack is read at once, from records of which a file can be made to have any number: it is cut instead.
_STACK_CPU_S = 1.0
# How often to ask again while somebody writes: close events come a moment before the kernel forgets the writer.
_WRITER_RECHECK_S = (0.1, 30.0)
# How long a cut dump keeps the name that its JVM, started again, needs for the next one.
_NAME_KEPT_S = 1.0
# By how much we let the clock of a file server lie before we believe that a file is old.
_CLOCK_LIE_S = 3600.0
_INCOMPLETE = (Shape.OPEN, Shape.CUT, Shape.BROKEN)


class Judge(Protocol):
    """Judges dump files, and remembers between two looks what it has learnt of each."""

    def judge(self, dump: DumpFile) -> Verdict:
        """Give what is known of the dump now. Raises OSError if the volume does not let it be read."""

    def forget(self, dump: DumpFile) -> None:
        """Drop what was learnt of a dump that is gone or stored."""


@dataclass
class _Seen:
    """What was learnt of one file: `still` is what the directory told when it last changed, at `still_since`."""

    still: tuple[Identity, ...]
    still_since: float
    look: Look | None = None
    look_of: tuple[Identity, WriterState] | None = None
    walked: Walked | None = None
    facts: DumpFacts | None = None
    of_other_vm: bool = False

    def state(self, shape: Shape, incomplete: State) -> State:
        """Give the state of a dump of that shape which is not complete."""
        if shape in _INCOMPLETE:
            return incomplete
        return State.UNKNOWN if self.of_other_vm else State.NOT_A_DUMP


@dataclass(frozen=True, slots=True)
class _Now:
    """One file at one look."""

    dump: DumpFile
    opened: OpenFile
    identity: Identity
    writer: WriterState


class CompletenessJudge:
    """Judges by lease, records, segment_files and, where these cannot know, by quiet time.

    Complete: due at once. Truncated, no dump at all, unknown: due once nothing has changed for `quiet_s`, and never
    while somebody writes. Quiet time runs by our own clock; a file's age only counts in addition, and with an
    hour's doubt where a writer on another machine could not be seen.
    """

    def __init__(
        self,
        *,
        quiet_s: float,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        take_lease: Callable[[int], WriterState] = take_read_lease,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        self._quiet_s, self._now, self._monotonic, self._take_lease = quiet_s, now, monotonic, take_lease
        self._cpu = cpu
        self._seen: dict[tuple[int, int], _Seen] = {}

    def judge(self, dump: DumpFile) -> Verdict:
        """Give what is known of the dump now, after a look of bounded length.

        Raises FileNotFoundError when it is gone or another file has its name, OSError if it cannot be read.
        """
        with open_dump(dump) as opened:
            opened.hop()
            status = opened.status()
            identity = Identity.of(status)
            writer = self._take_lease(opened.fd)
            try:
                verdict = self._judge(_Now(dump, opened, identity, writer))
                if writer is WriterState.NO_WRITER and verdict.due and not _untouched(opened, identity):
                    return Verdict(
                        State.WRITING, "somebody opens it for writing just now", due=False, recheck_s=0.25
                    )
            finally:
                if writer is WriterState.NO_WRITER:
                    release_lease(opened.fd)
        if verdict.due and identity != dump.identity:
            # What was judged is not what was found: only a new scan can say what is claimed and uploaded.
            return dataclasses.replace(verdict, due=False, recheck_s=0.0)
        return verdict

    def forget(self, dump: DumpFile) -> None:
        """Drop what was learnt of a dump that is gone or stored."""
        self._seen.pop((dump.device, dump.identity.inode), None)

    def _judge(self, now: _Now) -> Verdict:
        key = (now.dump.device, now.dump.identity.inode)
        seen = self._seen.setdefault(key, _Seen((), self._monotonic()))
        if now.writer is WriterState.WRITER:
            return self._writing(now, seen)
        if now.writer is WriterState.NO_WRITER:
            return self._judge_closed(now, seen)
        segment_files = segment_files_of(now.dump)
        still_s = self._notice(
            seen, (now.identity, *(part.identity for part in segment_files)), doubt_s=_CLOCK_LIE_S
        )
        doubt = "nobody can say whether it is still being written"
        if still_s < self._quiet_s:
            return self._wait(State.UNKNOWN, doubt, still_s, seen)
        walked = self._look(now, seen)
        if walked.shape is Shape.UNFINISHED:
            return Verdict(State.UNKNOWN, walked.reason, due=False, recheck_s=0.0, facts=seen.facts)
        if walked.shape is Shape.COMPLETE:
            return Verdict(State.COMPLETE, walked.reason, due=True, facts=seen.facts)
        reason = f"{walked.reason}{_beside(segment_files)}; {doubt}"
        return self._wait(seen.state(walked.shape, State.UNKNOWN), reason, still_s, seen)

    def _writing(self, now: _Now, seen: _Seen) -> Verdict:
        # JDK 22 and later leave the dump as it is while they write the parts beside it.
        self._notice(seen, (now.identity, *(part.identity for part in segment_files_of(now.dump))))
        still_s = self._monotonic() - seen.still_since
        least_s, most_s = _WRITER_RECHECK_S
        return Verdict(
            State.WRITING,
            "a process has it open for writing",
            due=False,
            recheck_s=min(max(least_s, still_s / 4), most_s),
            facts=seen.facts,
            held_open_s=still_s,
        )

    def _judge_closed(self, now: _Now, seen: _Seen) -> Verdict:
        """Judge a file that nobody has open for writing: its records alone say whether it is whole."""
        walked = self._look(now, seen)
        if walked.shape is Shape.UNFINISHED:
            return Verdict(State.UNKNOWN, walked.reason, due=False, recheck_s=0.0, facts=seen.facts)
        if walked.shape is Shape.COMPLETE:
            return Verdict(State.COMPLETE, walked.reason, due=True, facts=seen.facts)
        segment_files = segment_files_of(now.dump)
        still_s = self._notice(seen, (now.identity, *(part.identity for part in segment_files)))
        if any(self._is_written(part) for part in segment_files):
            reason = "its JVM still writes the part beside it"
            return Verdict(State.WRITING, reason, due=False, recheck_s=_WRITER_RECHECK_S[0], facts=seen.facts)
        cut = walked.shape in _INCOMPLETE or (walked.shape is Shape.EMPTY and bool(segment_files))
        state = State.TRUNCATED if cut else seen.state(walked.shape, State.TRUNCATED)
        verdict = self._wait(state, walked.reason + _beside(segment_files), still_s, seen)
        if verdict.due or not (cut or walked.shape is Shape.EMPTY):
            return verdict
        # The kernel says that nobody writes, the records that it is cut: the quiet time is for the upload alone.
        if still_s >= _NAME_KEPT_S:
            return dataclasses.replace(verdict, claimable=True)
        return dataclasses.replace(verdict, recheck_s=min(verdict.recheck_s or 0.0, _NAME_KEPT_S - still_s))

    def _notice(self, seen: _Seen, still: tuple[Identity, ...], *, doubt_s: float = 0.0) -> float:
        """Give for how many seconds nothing has changed, by our clock or by the files' age less `doubt_s`."""
        if seen.still != still:
            seen.still, seen.still_since = still, self._monotonic()
        age_s = self._now() - max(each.mtime_ns for each in still) / 1e9
        return max(0.0, self._monotonic() - seen.still_since, age_s - doubt_s)

    def _wait(self, state: State, reason: str, still_s: float, seen: _Seen) -> Verdict:
        left_s = self._quiet_s - still_s
        if left_s <= 0:
            return Verdict(state, reason, due=True, facts=seen.facts)
        reason = f"{reason}; it is taken after {left_s:.0f} s more without a change"
        return Verdict(state, reason, due=False, recheck_s=left_s, facts=seen.facts)

    def _look(self, now: _Now, seen: _Seen) -> Walked:
        """Look on from where the last look ended, if nothing changed since; what changed is looked at anew."""
        if seen.look is None or seen.look_of != (now.identity, now.writer):
            seen.look, seen.look_of = Look(now.opened), (now.identity, now.writer)
            seen.walked = seen.facts = None
            seen.of_other_vm = False
        if seen.walked is not None:
            return seen.walked
        base = base_of_segment(now.dump.relpath)
        if base is not None and kind_of(now.opened.read_at(0, HEAD_BYTES)) is not FileKind.HPROF:
            seen.facts = _facts_of(dataclasses.replace(now.dump, relpath=base))
            seen.walked = Walked(Shape.OPEN, "it is a part of a dump that its JVM did not merge")
            return seen.walked
        seen.look.read_from(now.opened)
        until = self._monotonic() + _LOOK_S
        walked = seen.look.advance(now.identity.size_bytes)
        while walked.shape is Shape.UNFINISHED and self._monotonic() < until:
            walked = seen.look.advance(now.identity.size_bytes)
        seen.facts = seen.look.facts()
        if walked.shape is Shape.FOREIGN and (vm := _OTHER_VMS.get(_kind(now.opened))):
            walked, seen.of_other_vm = Walked(Shape.FOREIGN, vm), True
        if walked.shape is not Shape.UNFINISHED:
            seen.walked = walked
            if seen.facts:
                enough = self._cpu() + _STACK_CPU_S
                stack = seen.look.oom_stack(keep_on=lambda _bytes: self._cpu() < enough)
                seen.facts = dataclasses.replace(seen.facts, oom_stack=stack)
        return walked

    def _is_written(self, part: DumpFile) -> bool:
        try:
            with open_dump(part) as opened:
                state = self._take_lease(opened.fd)
                if state is WriterState.NO_WRITER:
                    release_lease(opened.fd)
                return state is WriterState.WRITER
        except OSError:
            return False  # gone: merged. Unreadable: the base is judged by itself


# Dumps of other virtual machines: nothing here can say whether they are complete.
_OTHER_VMS = {
    FileKind.PHD: "a heap dump of OpenJ9 (PHD), of which nobody here can say whether it is complete",
    FileKind.CORE: "a system dump of OpenJ9, of which nobody here can say whether it is complete",
}


def _kind(opened: OpenFile) -> FileKind:
    return kind_of(opened.read_at(0, HEAD_BYTES)) or packed_kind(opened.read_at(0, PACKED_HEAD_BYTES))


def _untouched(opened: OpenFile, identity: Identity) -> bool:
    """Say whether nobody has begun to write since the lease was taken. Raises OSError."""
    status = opened.status()
    return lease_stands(opened.fd) and identity == Identity.of(status)


def _facts_of(part: DumpFile) -> DumpFacts | None:
    """Give what the dump at the path of `part` says of itself; None if it is gone, another owner's or says nothing."""
    try:
        base = find(part.root, part.relpath)
        if base is None or base.uid != part.uid:
            return None
        with open_dump(base) as opened:
            opened.hop()
            look = Look(opened)
            look.advance(opened.status().st_size)
            return look.facts()
    except OSError:
        return None


def _beside(segment_files: list[DumpFile]) -> str:
    if not segment_files:
        return ""
    size_bytes = sum(part.size_bytes for part in segment_files)
    return f"; beside it lie {len(segment_files)} part(s) of {size_bytes} bytes that its JVM did not merge"
