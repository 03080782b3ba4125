"""The job that analyzes what waits: each dump once, by one job, whatever fails, is killed or does not fit."""

from __future__ import annotations

import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from dumpagent.errors import Refused
from dumpagent.fetch.stored import is_dump_path
from dumpagent.kernel.reading import OpenFile
from dumpagent.pending.analysis import AnalysisOutcome
from dumpagent.pending.attempts import folder_of_notes
from dumpagent.pending.job import PendingJob, Ran, Terms
from dumpagent.pending.task import HTML_NAME, JSON_NAME, Task
from dumpagent.prune.carry_out import carry_out
from dumpagent.prune.plan import make_plan
from dumpagent.prune.policy import Rules
from dumpagent.store.protocol import Body, Store, StoredObject
from tests.harness.stores.memory import MemoryStore

GIB = 1 << 30
DUMP = b"JAVA PROFILE 1.0.2\0" + bytes(1000)


@dataclass
class Jobs:
    """A bucket and jobs beside it; `analyze` stands for the process that analyzes one dump, a fake."""

    store: Store = field(default_factory=MemoryStore)
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    now: float = 0.0  # added to the time

    def put(self, key: str, content: bytes = DUMP) -> None:
        self.store.put(key, Body(content, zlib.crc32(content)), {})

    def stored(self, below: str = "") -> list[str]:
        return sorted(stored.key for stored in self.store.objects(below))

    def notes(self) -> list[str]:
        return [key.removeprefix(folder_of_notes("")) for key in self.stored(folder_of_notes(""))]

    def run(
        self, analyze: Callable[[str], AnalysisOutcome] | None = None, *, limit: int = 4 * GIB, version: str = "1",
        spill: str | None = None, since: float | None = None, deadline: float = 1e9,
    ) -> Ran:  # fmt: skip

        def run(_opened: OpenFile, task: Task, _seconds: float) -> AnalysisOutcome:
            self.asked.append(task.name)
            outcome = (analyze or found)(task.name)
            if outcome.suspect:
                for name in (HTML_NAME, JSON_NAME):
                    with open(f"{task.folder}/{name}", "w") as file:
                        file.write("{}")
            return outcome

        terms = Terms(
            prefix="", version=version, job="me", deadline=time.monotonic() + deadline,
            task=Task("", 0, "", 0, limit, spill=spill), need_of=lambda objects, _bytes: 50 * objects,
        )  # fmt: skip
        job = PendingJob(
            self.store,
            terms,
            run=run,
            tell=self.said.append,
            stop=self.stop,
            now=lambda: time.time() + self.now,
        )
        return job.run(since=since)


def found(_name: str) -> AnalysisOutcome:
    return AnalysisOutcome(suspect="A.b holds 90 %")


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


def test_each_dump_gets_both_reports_once_and_no_note_stays(jobs: Jobs) -> None:
    jobs.put("a/x.hprof")
    jobs.put("b/y.hprof.gz")
    jobs.put("b/notes.txt", b"of somebody else")
    assert sorted(jobs.run().analyzed) == ["a/x.hprof", "b/y.hprof.gz"]
    assert jobs.run().analyzed == []
    assert jobs.stored() == [
        "a/x.hprof", "a/x.hprof.analysis.html", "a/x.hprof.analysis.json", "b/notes.txt", "b/y.hprof.gz",
        "b/y.hprof.gz.analysis.html", "b/y.hprof.gz.analysis.json",
    ]  # fmt: skip
    assert [key for key in jobs.stored() if is_dump_path(key)] == ["a/x.hprof", "b/notes.txt", "b/y.hprof.gz"]


def test_a_dump_that_another_job_works_on_is_left_to_it(jobs: Jobs) -> None:
    jobs.put("x.hprof")
    second = Jobs(jobs.store)
    during: list[Ran] = []

    def meanwhile(_name: str) -> AnalysisOutcome:
        during.append(second.run())
        return found("")

    assert jobs.run(meanwhile).analyzed == ["x.hprof"]
    assert during[0].elsewhere == ["x.hprof"]
    assert second.asked == []


def test_the_dump_of_a_job_that_was_killed_is_taken_when_its_claim_has_expired(jobs: Jobs) -> None:
    jobs.put("x.hprof")

    def killed(_name: str) -> AnalysisOutcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        # A process that is killed deletes nothing.
        Jobs(_Undeletable(jobs.store)).run(killed, deadline=600)
    assert jobs.notes() == ["x.hprof~0!claim"]
    jobs.now = 600
    assert jobs.run().elsewhere == ["x.hprof"]
    jobs.now = 640
    assert jobs.run().analyzed == ["x.hprof"]
    assert jobs.notes() == []


def test_a_dump_that_kills_its_job_each_time_is_given_up(jobs: Jobs) -> None:
    jobs.put("x.hprof")

    def killed(_name: str) -> AnalysisOutcome:
        raise KeyboardInterrupt

    for attempt in range(3):
        jobs.now = 10_000 * attempt
        with pytest.raises(KeyboardInterrupt):
            Jobs(_Undeletable(jobs.store), now=jobs.now).run(killed, deadline=600)
    jobs.now = 40_000
    assert jobs.run().given_up == ["x.hprof"]
    assert any("3 attempts" in line for line in jobs.said)


def test_a_failed_dump_costs_itself_alone_and_a_new_version_tries_it_again(jobs: Jobs) -> None:
    jobs.put("bad.hprof")
    jobs.put("good.hprof")

    def analyze(name: str) -> AnalysisOutcome:
        return AnalysisOutcome(error="broken") if name == "bad.hprof" else found(name)

    ran = jobs.run(analyze)
    assert (ran.analyzed, ran.failed) == (["good.hprof"], ["bad.hprof"])
    for _ in range(2):
        assert jobs.run(analyze).failed == ["bad.hprof"]
    assert jobs.run(analyze).given_up == ["bad.hprof"]
    assert jobs.run(version="2").analyzed == ["bad.hprof"]
    assert jobs.notes() == []


def test_what_needs_more_memory_is_named_once_read_and_taken_where_there_is_more(jobs: Jobs) -> None:
    jobs.put("x.hprof")
    large = AnalysisOutcome(need_bytes=6 * GIB, error="too large")
    assert jobs.run(lambda _name: large).too_large == ["x.hprof"]
    assert jobs.notes() == [f"x.hprof~0!needs!1!{6 * GIB}"]
    assert jobs.run().too_large == ["x.hprof"]
    assert jobs.asked == ["x.hprof"], "the second run knows it without fetching"
    assert "x.hprof needs about 6.0 GiB of memory, 4.0 GiB are at hand" in jobs.said[-1]
    assert jobs.run(limit=8 * GIB).analyzed == ["x.hprof"]


def test_the_summary_beside_a_dump_tells_the_need_before_anything_is_fetched(jobs: Jobs) -> None:
    jobs.put("x.hprof")
    jobs.put("x.hprof.report.json", json.dumps({"objects": 10**8, "shallow_bytes": 10**9}).encode())
    assert jobs.run(limit=4 * GIB).too_large == ["x.hprof"]
    assert jobs.asked == []
    assert jobs.run(limit=4 * GIB, spill="/tmp").analyzed == ["x.hprof"]


def test_a_file_without_a_heap_is_looked_at_once(jobs: Jobs) -> None:
    jobs.put("x.hprof")
    assert jobs.run(lambda _name: AnalysisOutcome(no_heap="it is empty")).no_heap == ["x.hprof"]
    assert jobs.run().no_heap == ["x.hprof"]
    assert jobs.asked == ["x.hprof"]


def test_a_stop_releases_the_claim_and_counts_as_no_attempt(jobs: Jobs) -> None:
    jobs.put("x.hprof")
    jobs.put("y.hprof")

    def stopped(_name: str) -> AnalysisOutcome:
        jobs.stop.set()
        return AnalysisOutcome(stopped=True)

    ran = jobs.run(stopped)
    assert len(ran.left) == 2
    assert jobs.notes() == []


def test_dumps_that_are_too_old_are_left_alone(jobs: Jobs) -> None:
    jobs.put("x.hprof")
    assert jobs.run(since=1e12).analyzed == []


def test_bytes_that_are_not_those_that_were_stored_are_not_analyzed(jobs: Jobs) -> None:
    jobs.store.put(
        "x.hprof",
        Body(DUMP, zlib.crc32(DUMP)),
        {"crc32": "00000001", "original-size": str(len(DUMP)), "verdict": "complete"},
    )
    jobs.store = _Labelled(jobs.store)
    assert jobs.run().failed == ["x.hprof"]
    assert jobs.asked == []


def test_prune_takes_the_reports_and_the_notes_with_the_dump() -> None:
    from dumpagent.index.writer import entry_of_object, write_entry

    jobs = Jobs()
    for number in range(3):
        key = f"shop_cart-7d4f9c8b6-x2k9q/java_pid{number}.hprof"
        jobs.put(key)
        metadata = {"dump-time": f"2020-01-0{number + 1}T00:00:00Z", "verdict": "complete"}
        entry = entry_of_object(key, len(DUMP), metadata, prefix="", stored_at=1.6e9)
        write_entry(jobs.store, entry)

    def analyze(name: str) -> AnalysisOutcome:
        return AnalysisOutcome(error="broken") if "pid1" in name else found(name)

    ran = jobs.run(analyze)
    assert len(ran.analyzed) == 2
    assert len(jobs.notes()) == 1
    plan = make_plan(jobs.store, Rules(keep_last=1, keep_largest=0, keep_days=1), prefix="", now=1.7e9)
    carry_out(jobs.store, _Eraser(jobs.store), plan, stopped=lambda: False)
    assert jobs.notes() == []
    assert {key.partition("!")[0] for key in jobs.stored("shop")} == {
        f"shop_cart-7d4f9c8b6-x2k9q/java_pid{number}.hprof{ending}"
        for number in (0, 2)
        for ending in ("", ".analysis.html", ".analysis.json")
    }


@pytest.mark.parametrize("path", ["x" * 240 + ".hprof", "d/" * 400 + "x.hprof", "a~1!claim/b!c~0.hprof"])
def test_notes_of_any_path_are_found_again(path: str, jobs: Jobs) -> None:
    jobs.put(path)
    for _ in range(4):
        ran = jobs.run(lambda _name: AnalysisOutcome(error="broken"))
    assert ran.given_up == [path]


class _Undeletable:
    """A store for a job that is killed: what it would delete at its end stays. A fake."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def delete(self, key: str) -> None:
        raise Refused(f"deleting {key}: the store answered 403 AccessDenied")


class _Labelled:
    """A store whose listing carries metadata, as an index entry does. A fake."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        looked = (self._store.look(stored.key) for stored in self._store.objects(prefix))
        return (found for found in looked if found)


@dataclass
class _Eraser:
    store: Store

    def erase(self, key: str) -> None:
        self.store.delete(key)
