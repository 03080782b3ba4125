"""Runs `analyze --pending`: one pass over the dumps that have no analysis."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from dataclasses import dataclass

from dumpagent import __version__
from dumpagent.cli.store import open_store
from dumpagent.cli.stored import say, shown
from dumpagent.errors import DumpagentError
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.pending.analysis import run_apart
from dumpagent.pending.job import PendingJob, Ran, Terms
from dumpagent.pending.task import Task
from dumpagent.settings import S3, Analyzing

FAILED, STOPPED = 3, 143
# What the job itself takes beside the analysis, which runs in a process of its own.
_OWN_BYTES = 128 << 20
_DAY_S = 86400.0


@dataclass(frozen=True, slots=True)
class Means:
    """What an analysis may use: bytes of memory, a directory for what does not fit."""

    limit_bytes: int
    spill: str | None = None


def run_pending(
    s3: S3, analyzing: Analyzing, means: Means, *, rows: int, strings: bool, show_text: bool
) -> int:
    """Analyze what waits, and give the exit code. Raises DumpagentError."""
    if importlib.util.find_spec("numba") is None:
        raise DumpagentError(
            "numba is not installed", hint="install it with: pip install 'dumpagent[analyze]'"
        )
    from dumpagent.analyze.memory import need_bytes

    def need_of(objects: int, heap_bytes: int) -> int:
        return need_bytes(objects, 3 * objects, heap_bytes // 40)

    task = Task(
        name="", size_bytes=0, folder="", parent=0, limit_bytes=max(0, means.limit_bytes - _OWN_BYTES), rows=rows,
        strings=strings, show_text=show_text, spill=means.spill,
    )  # fmt: skip
    shutdown = Shutdown()
    store = open_store(s3, tell=lambda *_event, **_fields: None, stop=shutdown.stop)
    terms = Terms(
        prefix=s3.prefix, version=__version__, job=os.environ.get("POD_NAME") or socket.gethostname(),
        deadline=time.monotonic() + analyzing.deadline_s, task=task, need_of=need_of,
    )  # fmt: skip
    job = PendingJob(
        store,
        terms,
        run=lambda opened, asked, seconds: run_apart(opened, asked, seconds=seconds, stop=shutdown.stop),
        tell=lambda line: say(shown(line)),
        stop=shutdown.stop,
    )
    since = time.time() - analyzing.max_age_days * _DAY_S if analyzing.max_age_days else None
    with shutdown:
        ran = job.run(since=since)
    say(_said(ran))
    return STOPPED if shutdown.stop.is_set() else FAILED if ran.failed else 0


def _said(ran: Ran) -> str:
    counted = {
        "analyzed": ran.analyzed, "failed": ran.failed, "too large": ran.too_large, "without a heap": ran.no_heap,
        "in work elsewhere": ran.elsewhere, "given up": ran.given_up, "left for the next run": ran.left,
    }  # fmt: skip
    parts = [f"{len(paths):,} {what}" for what, paths in counted.items() if paths or what == "analyzed"]
    return f"done: {', '.join(parts)}"
