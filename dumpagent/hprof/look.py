"""How complete one file is as a heap dump, plain or gzip, as far as it has been looked at."""

from __future__ import annotations

from dumpagent.dumps.model import DumpFacts
from dumpagent.hprof import facts, gzip, records
from dumpagent.hprof.source import ByteSource, KeepOn
from dumpagent.hprof.thread import thread_name
from dumpagent.hprof.walk import LOOK_BYTES, Shape, Walk, Walked


class Look:
    """A look at one file that can be taken up again; which kind of file it is, its first bytes tell, not its name."""

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self.walk = Walk()
        self.unpacked: gzip.Unpacked | None = None
        self._tail_asked = False
        self._kind_known = False

    def read_from(self, source: ByteSource) -> None:
        """Go on with another source of the same bytes: the file opened anew."""
        self.source = source
        if self.unpacked:
            self.unpacked.packed = source

    @property
    def bytes_source(self) -> ByteSource:
        """The dump's own bytes, unpacked if the file is gzip."""
        return self.unpacked or self.source

    def advance(
        self,
        size_bytes: int,
        *,
        budget_bytes: int | None = LOOK_BYTES,
        keep_on: KeepOn = lambda _bytes: True,
    ) -> Walked:
        """Look on, reading at most about `budget_bytes` (None: to the end), and no further once `keep_on` says no.

        `keep_on` is asked after each piece of at most 256 KiB, which costs 5 to 40 ms of CPU; what was stopped is
        UNFINISHED, and the next call goes on from there. A file that became smaller or was written anew needs a new
        Look. Raises OSError.
        """
        if not self._kind_known:
            start = self.source.read_at(0, 3)
            if start and records.GZIP_MAGIC.startswith(start):
                if len(start) < 3:
                    return Walked(Shape.CUT, "it ends inside the gzip header")
                self.unpacked = gzip.Unpacked(self.source)
            self._kind_known = bool(start)
        if self.unpacked:
            return self._advance_packed(self.unpacked, size_bytes, budget_bytes, keep_on)
        return self.walk.advance(
            self.source, size_bytes=size_bytes, budget_bytes=budget_bytes or 1 << 62, keep_on=keep_on
        )

    def _advance_packed(
        self, unpacked: gzip.Unpacked, size_bytes: int, budget_bytes: int | None, keep_on: KeepOn
    ) -> Walked:
        unpacked.allowance_bytes, unpacked.keep_on = budget_bytes, keep_on
        budget_bytes = budget_bytes or 1 << 62
        try:
            walked = self.walk.advance(
                unpacked, budget_bytes=budget_bytes, head_only=not self._tail_asked, keep_on=keep_on
            )
            if walked.shape is Shape.UNFINISHED and self.walk.heap_begun and not self._tail_asked:
                # A HEAP DUMP record (format 1.0.1) has no END behind it that could be looked for.
                tail = gzip.Tail.UNSURE if self.walk.legacy else gzip.read_tail(self.source, size_bytes)
                if tail is gzip.Tail.ENDED:
                    return Walked(
                        Shape.COMPLETE, "its last gzip members are whole and lead up to the END record"
                    )
                if tail is gzip.Tail.OPEN:
                    return Walked(Shape.OPEN, "its last gzip member is whole and has no END record")
                self._tail_asked = True
                walked = self.walk.advance(unpacked, budget_bytes=budget_bytes, keep_on=keep_on)
        except gzip.NotYet:
            return Walked(
                Shape.UNFINISHED, f"{unpacked.packed_offset} of {size_bytes} packed bytes are looked through"
            )
        if walked.shape in (Shape.UNFINISHED, Shape.BROKEN):
            return walked
        if walked.shape is Shape.FOREIGN:
            return Walked(Shape.FOREIGN, f"unpacked from gzip, {walked.reason}")
        if unpacked.problem:
            return Walked(Shape.BROKEN, unpacked.problem)
        if not unpacked.whole:
            return Walked(Shape.CUT, "it ends inside a gzip member")
        if walked.shape is Shape.EMPTY:
            return Walked(Shape.FOREIGN, "it is gzip that unpacks to nothing")
        return walked

    @property
    def unpacked_to_end(self) -> bool:
        """Whether a gzip file was unpacked to its end, and not judged by its last members."""
        return self._tail_asked

    @property
    def head_seen(self) -> bool:
        """Whether every record before the heap has been looked at, so that what is missing there is missing."""
        return self.walk.heap_begun

    def facts(self) -> DumpFacts | None:
        """Give what is known of the dump so far; None before its header."""
        if self.walk.header is None or self.walk.gathered is None:
            return None
        return facts.facts_of(self.walk.header, self.walk.gathered, all_seen=self.head_seen)

    def oom_stack(self, *, keep_on: KeepOn = lambda _bytes: True) -> tuple[str, ...]:
        """Give the stack of the thread that ran out of memory, innermost frame first. Raises OSError.

        Reads the records outside the heap again; `?` stands for what `keep_on` left unread.
        """
        walk = self.walk
        if walk.header is None or walk.gathered is None:
            return ()
        self._allow_all()
        if self.unpacked:
            self.unpacked.keep_on = keep_on
        try:
            return facts.oom_stack(self.bytes_source, walk.header, walk.gathered, walk.ranges, keep_on)
        except gzip.NotYet:
            return ()

    def _allow_all(self) -> None:
        if self.unpacked:
            self.unpacked.allowance_bytes, self.unpacked.keep_on = None, lambda _bytes: True

    def oom_thread(self, *, keep_on: KeepOn = lambda _bytes: True) -> str | None:
        """Give the name of the thread that ran out of memory, None if the dump does not tell or `keep_on` ended it.

        A thread that has no name is "". Reads heap records, up to all of them. Raises OSError.
        """
        self._allow_all()
        return thread_name(self.bytes_source, self.walk, keep_on=keep_on, backwards=self.unpacked is None)
