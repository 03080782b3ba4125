"""Makes a summary stand still while a dump is judged or uploaded: they share one container's CPU."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from dumpagent.dumps.model import DumpFile, Verdict
from dumpagent.upload.volume.judge import Judge


class Pausable(Protocol):
    """What can be made to stand still."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Precedence:
    """Whoever works on a dump that is not safe yet takes precedence. Any thread may."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._working = 0
        self._process: Pausable | None = None

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Have the summary stand still for as long as this is open."""
        with self._lock:
            self._working += 1
            if self._working == 1 and self._process:
                self._process.pause()
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1
                if self._working == 0 and self._process:
                    self._process.resume()

    @contextmanager
    def given_by(self, process: Pausable) -> Iterator[None]:
        """Have `process` give precedence to the others."""
        with self._lock:
            self._process = process
            if self._working:
                process.pause()
        try:
            yield
        finally:
            with self._lock:
                self._process = None


class JudgedFirst:
    """A judge that takes precedence."""

    def __init__(self, judge: Judge, precedence: Precedence) -> None:
        self._judge, self._precedence = judge, precedence

    def judge(self, dump: DumpFile) -> Verdict:
        """Do what the judge does. Raises what it raises."""
        with self._precedence.taken():
            return self._judge.judge(dump)

    def forget(self, dump: DumpFile) -> None:
        """Drop what was learnt of a dump."""
        self._judge.forget(dump)
