"""Finds out which thread ran out of memory while its dump is being sent, and keeps out of the way of that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dumpagent.dumps.model import Cause, DumpFile, Verdict
from dumpagent.hprof.look import Look
from dumpagent.hprof.thread import KeepOn
from dumpagent.hprof.walk import Shape
from dumpagent.kernel.beneath import open_file
from dumpagent.kernel.reading import OpenFile

# While the dump is sent, the search takes one twentieth of the time; what is left to do then is done at once.
_IDLE_SHARE = 19
_CPU_S = 1.0  # about 1 GB of a dump, more than half of it on the average
_HEAD_BYTES = 64 << 20


def find_thread(dump: DumpFile, keep_on: KeepOn) -> str | None:
    """Give the name of the thread that ran out of memory, None if the dump does not tell. Raises OSError."""
    with OpenFile(open_file(dump.root, dump.relpath), dump.path) as opened:
        status = opened.status()
        if (status.st_ino, status.st_uid) != (dump.identity.inode, dump.uid):
            return None
        look = Look(opened)
        walked = look.advance(status.st_size, budget_bytes=_HEAD_BYTES)
        if walked.shape is Shape.UNFINISHED and look.unpacked is None:
            return None
        try:
            return look.oom_thread(keep_on=keep_on)
        finally:
            opened.forget_pages()  # the upload has dropped its own, and may be over by now


Find = Callable[[DumpFile, KeepOn], str | None]


class OomThreadSearch:
    """One search, begun when it is made. Without an OutOfMemoryError there is nothing to search for."""

    def __init__(
        self, dump: DumpFile, verdict: Verdict, *, cpu_s: float = _CPU_S, find: Find = find_thread
    ) -> None:
        self.dump = dump
        self._cpu_s, self._find = cpu_s, find
        self._found: str | None = None
        self.fault: Exception | None = None  # what ended the search, if it was a fault of ours
        self._resumed = time.monotonic()
        self._hurry, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        if verdict.facts and verdict.facts.cause is Cause.OOM:
            thread = threading.Thread(target=self._search, name="oom thread", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # the pod's pids limit: the upload does without the name
            self._thread = thread

    def name(self, *, wait_s: float) -> str | None:
        """Give the thread's name, waiting up to `wait_s` for it; None if it is not known then. Ends the search."""
        if self._thread:
            self._hurry.set()
            self._thread.join(wait_s)
            self._stop.set()
        return self._found

    def _search(self) -> None:
        try:
            self._found = self._find(self.dump, self._keep_on)
        except OSError:
            pass  # gone or unreadable: the upload tells
        except Exception as error:  # noqa: BLE001 - a fault of ours costs the name, not the upload; `fault` has it told
            self.fault = error

    def _keep_on(self, _bytes: int) -> bool:
        """Rest after a piece of work; say whether another one may follow."""
        if time.thread_time() > self._cpu_s or self._stop.is_set():
            return False
        worked_s = time.monotonic() - self._resumed
        self._hurry.wait(_IDLE_SHARE * worked_s)
        self._resumed = time.monotonic()
        return True
