"""Runs the analysis of one dump in a process of its own, which can be killed and whose death costs one dump."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dumpagent.kernel.reading import OpenFile
from dumpagent.pending.task import Task

_LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class AnalysisOutcome:
    """What came of it: `suspect` in words and both reports in the task's folder, or one of the others.

    `stopped`: it was ended from outside before it was done.
    """

    suspect: str | None = None
    no_heap: str | None = None
    need_bytes: int | None = None
    error: str | None = None
    stopped: bool = False


Run = Callable[[OpenFile, Task], AnalysisOutcome]


def run_apart(opened: OpenFile, task: Task, *, seconds: float, stop: threading.Event) -> AnalysisOutcome:
    """Analyze in another process; end it when `seconds` are over or `stop` is set."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dumpagent.pending.child", json.dumps(dataclasses.asdict(task))],
        stdin=opened.fd,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    left_s = seconds
    try:
        while process.poll() is None:
            if stop.wait(_LOOK_S):
                return AnalysisOutcome(stopped=True)
            left_s -= _LOOK_S
            if left_s <= 0:
                return AnalysisOutcome(error=f"it took longer than the {seconds:.0f} s that were left")
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        return _outcome(process.returncode, process.stdout.read())
    finally:
        process.kill()
        process.wait()


def _outcome(code: int, said: bytes) -> AnalysisOutcome:
    try:
        told: dict[str, Any] = dict(json.loads(said))
    except ValueError:
        return AnalysisOutcome(error=_end_of(code))
    if "needs" in told:
        return AnalysisOutcome(need_bytes=int(told["needs"]), error=str(told["reason"]))
    return AnalysisOutcome(suspect=told.get("suspect"), no_heap=told.get("no_heap"), error=told.get("error"))


def _end_of(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    why = " (the kernel does that when memory is short)" if code == -signal.SIGKILL else ""
    return f"its process was ended by {signal.Signals(-code).name}{why}"
