"""Has each stored dump summarised: one after the other, users by turns, in a process that stands still while other dumps need the CPU.

What is still to do is kept in STATE_DIR/summaries, a small file for each dump, with how often it was begun: a summary that
was cut off is made after a restart, and one that ended the agent twice is skipped. It is a cache: without it nothing is
lost but a summary.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from typing import Any, Protocol

from isal import isal_zlib

from dumpagent import __version__
from dumpagent.dumps.files import find, open_dump
from dumpagent.dumps.keys import below
from dumpagent.dumps.model import DumpFile, Identity, State, Verdict
from dumpagent.dumps.names import dump_of_segment
from dumpagent.dumps.receipt import Receipt
from dumpagent.dumps.text import iso_time_ms
from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.index.previous import previous_entry
from dumpagent.kernel.children import Pausable, Precedence
from dumpagent.kernel.files import replace_file
from dumpagent.kernel.reading import OpenFile
from dumpagent.observe.events import Tell
from dumpagent.observe.events.dumps import DumpSummarised, SummaryFailed, SummaryRecovered, SummarySkipped
from dumpagent.observe.incident import Incident
from dumpagent.store.protocol import Body, Corrupted, Expired, LookRefused, Occupied, Store
from dumpagent.summary.due import DueSummaries, DueSummary
from dumpagent.summary.growth import growth, growth_line
from dumpagent.upload.ledger import remove_cut_writes

ENDING = ".report.json"
_VERSION = 1
_ATTEMPTS = 2
_MOST_WAITING = 200
_RETRY_S = 30.0
_LOOK_S = 1.0
_REPORT_BYTES = 1 << 20


class Working(Pausable, Protocol):
    """A summary that is being made, as SummaryProcess makes it."""

    def wait(self, seconds: float) -> bool:
        """Say whether it has ended, after waiting up to `seconds` for that."""

    def answer(self) -> dict[str, Any]:
        """Give what it says, after its end. Raises DumpagentError."""

    def close(self) -> None:
        """End it."""


Begin = Callable[
    [OpenFile, int], Working
]  # of a file of so many bytes; raises OSError when no process can be had


class _Unsuited(Exception):
    """This dump gets no summary; the text says why."""


class Summaries:
    """`add` belongs to the thread that uploads, `step` to one of its own. `least_free` is a share of the volume."""

    def __init__(
        self,
        store: Store,
        *,
        root: str,
        directory: str,
        begin: Begin,
        precedence: Precedence,
        tell: Tell,
        stop: threading.Event,
        least_free: float,
        prefix: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._root, self._directory, self._begin = store, root, directory, begin
        self._precedence, self._tell, self._stop, self._least_free = precedence, tell, stop, least_free
        self._prefix, self._now = prefix, now
        self._incident = Incident(tell, SummaryFailed, SummaryRecovered)
        self._changed = threading.Condition()
        self._waiting = DueSummaries(_MOST_WAITING)
        self._held: tuple[Identity, OpenFile] | None = (
            None  # the next dump: LOCAL_KEEP may delete it before its turn
        )
        self._attempts: dict[Identity, int] = {}
        self._busy = False

    # -- what is to do ------------------------------------------------------------------------------------------

    def add(self, dump: DumpFile, verdict: Verdict, receipt: Receipt) -> None:
        """Note that this stored dump is to be summarised; never waits for the summary."""
        if verdict.state is State.NOT_A_DUMP or dump_of_segment(dump.relpath) or not dump.size_bytes:
            return
        facts = verdict.facts
        due = DueSummary(
            identity=dump.identity,
            relpath=dump.relpath,
            uid=dump.uid,
            key=receipt.key,
            crc32=receipt.crc32,
            verdict=verdict.state.value,
            dump_time=iso_time_ms(facts.dump_time_ms) if facts else None,
            jvm=facts.jvm if facts else None,
            cause=facts.cause.value if facts else None,
            is_news=receipt.is_news,
        )
        with self._changed:
            if due.identity in self._waiting:
                return
            if not self._waiting and not self._busy and self._held is None:
                self._hold(dump)
            if self._enqueue(due):
                self._keep(due)
                self._changed.notify()

    def load(self) -> None:
        """Read what an earlier run did not come to. Call it once the state directory is ours."""
        remove_cut_writes(self._directory)
        for name in _names_in(self._directory):
            try:
                with open(f"{self._directory}/{name}", "rb") as file:
                    values = dict(json.loads(file.read(1 << 16)))
                if values.pop("version") != _VERSION:
                    continue
                due = DueSummary(**{**values, "identity": Identity(**values["identity"])})
            except (OSError, ValueError, KeyError, TypeError):
                continue
            with self._changed:
                if due.identity not in self._waiting:
                    self._enqueue(due)

    def finish(self, until: Callable[[], bool]) -> None:
        """Make what waits, once each, until nothing does or `until` says so; the rest is told as skipped."""
        while True:
            with self._changed:
                due = self._next()
                if due is None or self._stop.is_set():
                    return
                again = self._attempts.get(due.identity, 0) > 0
                if again or until():
                    self._waiting.remove(due)
            if again or until():
                self._skip(due, "the pass has ended; `dumpagent analyze` with its key says more")
            else:
                self.step()

    def step(self) -> None:
        """Make the next summary, or wait a second for one to make. Tells what comes of it."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(_LOOK_S)
            due = self._next()
            if due is None or self._stop.is_set():
                return
            self._waiting.serve(due)
            self._busy = True
        try:
            self._make(due)
        except _Unsuited as reason:
            self._skip(due, str(reason))
            self._forget(due)
        except DumpagentError as error:
            self._incident.failed(
                "summary",
                SummaryFailed(error=str(error), hint=error.hint or None, path=due.relpath, key=due.key),
            )
            self._again(due)
        except OSError as error:
            self._incident.failed(
                "summary", SummaryFailed(error=error.strerror or str(error), path=due.relpath, key=due.key)
            )
            self._again(due)
        else:
            self._incident.ended_for("summary", SummaryRecovered(path=due.relpath))
        finally:
            self._busy = False

    def _next(self) -> DueSummary | None:
        """Give the one whose turn it is: the one that is held open, else the next of the user who waited longest."""
        return self._waiting.next(self._held[0] if self._held else None)

    def _enqueue(self, due: DueSummary) -> bool:
        """Let one wait; say whether it does. One that is left out for it is told."""
        left_out = self._waiting.add(due)
        if left_out:
            self._skip(
                left_out, f"{_MOST_WAITING} dumps wait for theirs, and no user has more of them than its own"
            )
            self._forget(left_out)
        return left_out is not due

    # -- one summary --------------------------------------------------------------------------------------------

    def _make(self, due: DueSummary) -> None:
        """Raises _Unsuited, DumpagentError and OSError (it is tried again)."""
        if due.attempts >= _ATTEMPTS:
            raise _Unsuited(f"{due.attempts} attempts ended without one")
        if self._is_there(due):
            self._forget(due)
            return
        with self._opened(due) as opened:
            answer = self._answer(due, opened)
        if answer is None:
            return  # a stop; the next start makes it
        if answer["report"] is None:
            raise _Unsuited("the file holds no heap")
        report = self._told_of(due, dict(answer["report"]))
        lines = tuple(str(each) for each in answer["lines"])
        if grown := self._growth(due, report):
            report["growth"] = grown
            lines += (growth_line(grown),)
        stored = self._stored(due, report)
        if self._stop.is_set() and stored is None:
            return
        self._tell(
            DumpSummarised(
                path=f"{self._root}/{due.relpath}",
                key=due.key,
                report=stored or None,
                lines=lines,
                size_bytes=due.identity.size_bytes,
                crc32=f"{due.crc32:08x}",
                verdict=due.verdict,
                cpu_seconds=float(report["cpu_s"]),
                budget_ended=bool(report.get("out_of_time")),
                dump_time=due.dump_time,
            )
        )
        self._forget(due)

    def _is_there(self, due: DueSummary) -> bool:
        """Say whether the store has the report. Where it does not tell, only new dumps are summarised."""
        try:
            return self._store.look(due.key + ENDING) is not None
        except LookRefused:
            return not due.is_news

    def _opened(self, due: DueSummary) -> OpenFile:
        held, self._held = self._held, None
        if held and held[0] == due.identity:
            return held[1]
        if held:
            os.close(held[1].fd)
        try:
            dump = find(self._root, due.relpath)
            if dump is None or (dump.identity, dump.uid) != (due.identity, due.uid):
                raise _Unsuited("another file has its name now")
            return open_dump(dump)
        except FileNotFoundError:
            raise _Unsuited("it is no longer on the volume") from None

    def _answer(self, due: DueSummary, opened: OpenFile) -> dict[str, Any] | None:
        """Give what the process says, None at a stop. Raises _Unsuited, DumpagentError, OSError."""
        begun = replace(due, attempts=due.attempts + 1)
        process = self._begin(opened, due.identity.size_bytes)
        with closing(process), self._precedence.given_by(process):
            self._keep(begun)
            while not process.wait(_LOOK_S):
                if self._stop.is_set():
                    self._keep(due)  # a stop is no failed attempt
                    return None
                if self._needs_room(opened):
                    raise _Unsuited("it was deleted from the volume, which needs its space")
            answer = process.answer()
        status = opened.status()
        if (status.st_size, status.st_mtime_ns) != (due.identity.size_bytes, due.identity.mtime_ns):
            raise _Unsuited("it was written to meanwhile")
        return answer

    def _needs_room(self, opened: OpenFile) -> bool:
        """Say whether the open descriptor keeps space of a deleted dump that others need."""
        if opened.status().st_nlink:
            return False
        space = os.fstatvfs(opened.fd)
        return space.f_bavail < self._least_free * space.f_blocks

    def _told_of(self, due: DueSummary, report: dict[str, Any]) -> dict[str, Any]:
        """Give the report with the dump that it is about."""
        dump = {
            "key": due.key, "size_bytes": due.identity.size_bytes, "crc32": f"{due.crc32:08x}", "verdict": due.verdict,
            "dump_time": due.dump_time, "jvm": due.jvm, "cause": due.cause,
        }  # fmt: skip
        return {**report, "agent_version": __version__, "dump": dump}

    def _growth(self, due: DueSummary, report: dict[str, Any]) -> dict[str, Any] | None:
        """Give what grew since the dump before it of the same workload; None where no report of one can be had."""
        try:
            before = previous_entry(self._store, due.key, prefix=self._prefix, now=self._now())
            if before is None:
                return None
            there = below(self._prefix) + before.path + ENDING
            return growth(json.loads(b"".join(self._store.read(there, length=_REPORT_BYTES))), report)
        except (DumpagentError, ValueError):
            return None  # no report, or none that these credentials may read: the summary itself counts

    def _stored(self, due: DueSummary, report: dict[str, Any]) -> str | None:
        """Store the report and give its key, "" if it is not to be stored, None at a stop."""
        key, content = due.key + ENDING, json.dumps(report).encode()
        while not self._stop.is_set():
            try:
                self._store.put(key, Body(content, isal_zlib.crc32(content)), {})
            except Occupied:
                return ""  # another agent's, of the same dump; it stays
            except (Unreachable, Corrupted, Expired):
                self._stop.wait(_RETRY_S)
                continue
            except Refused as error:
                self._incident.failed(
                    "report",
                    SummaryFailed(
                        error=str(error),
                        hint=error.hint
                        or f"allow s3:PutObject on keys that end in {ENDING}, or set SUMMARY=off",
                        path=due.relpath,
                        key=key,
                    ),
                )
                return ""
            self._incident.ended_for("report", SummaryRecovered(path=due.relpath))
            return key
        return None

    # -- the notes ----------------------------------------------------------------------------------------------

    def _again(self, due: DueSummary) -> None:
        """Put one back that failed, and wait a while."""
        with self._changed:
            self._enqueue(replace(due, attempts=self._attempts.get(due.identity, due.attempts)))
        self._stop.wait(_RETRY_S)

    def _skip(self, due: DueSummary, reason: str) -> None:
        self._tell(SummarySkipped(path=f"{self._root}/{due.relpath}", reason=reason, key=due.key))

    def _hold(self, dump: DumpFile) -> None:
        try:
            self._held = (dump.identity, open_dump(dump))
        except OSError:
            pass  # it is opened when its turn comes

    def _keep(self, due: DueSummary) -> None:
        self._attempts[due.identity] = due.attempts
        path = f"{self._directory}/{due.identity}.json"
        try:
            os.makedirs(self._directory, mode=0o700, exist_ok=True)
            replace_file(path, json.dumps({"version": _VERSION, **asdict(due)}).encode(), mode=0o600)
        except OSError:
            pass  # memory remembers it until the end of this process; the ledger tells that nothing can be written

    def _forget(self, due: DueSummary) -> None:
        self._attempts.pop(due.identity, None)
        try:
            os.unlink(f"{self._directory}/{due.identity}.json")
        except OSError:
            pass  # a report that is there is found there


def _names_in(directory: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except OSError:
        return []
