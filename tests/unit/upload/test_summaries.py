"""Each stored dump is summarised once, whatever ends the agent, and no summary takes anything from a dump that is not safe yet."""

from __future__ import annotations

import json
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dumpagent.dumps.metadata import DumpMetadata
from dumpagent.dumps.model import State, Verdict
from dumpagent.dumps.receipt import Receipt
from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.index.entry import entry_of
from dumpagent.index.writer import write_entry
from dumpagent.kernel.children import Precedence
from dumpagent.kernel.reading import OpenFile
from dumpagent.observe.events import Event
from dumpagent.store.protocol import Body, StoredObject
from dumpagent.upload.summaries import Summaries
from dumpagent.upload.transfer.job import Job
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import Told, Volume, contents

ANSWER = {
    "report": {"version": 1, "cpu_s": 1.5, "owner": None},
    "lines": ["held by: x", "classes: y", "heap: z"],
}

_TEXT = b'{"of": "another"}'
ANOTHERS = Body(_TEXT, zlib.crc32(_TEXT))


class Process:
    """A fake of the process that summarises."""

    def __init__(self, answer: dict[str, Any] | DumpagentError, *, ends: bool = True) -> None:
        self._answer, self.ends = answer, ends
        self.paused = self.closed = False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def wait(self, _seconds: float) -> bool:
        return self.ends

    def answer(self) -> dict[str, Any]:
        if isinstance(self._answer, DumpagentError):
            raise self._answer
        return self._answer

    def close(self) -> None:
        self.closed = True


class Agent:
    """An uploader's summaries on a volume, a fresh process each time."""

    def __init__(
        self, volume: Volume, store: MemoryStore, *, answer: dict[str, Any] | DumpagentError = ANSWER,
        prefix: str = "", now: float = 0.0,
    ) -> None:  # fmt: skip
        self.volume, self.told, self.stop = volume, Told(), threading.Event()
        self.begun: list[bytes] = []
        self.process = Process(answer)
        self.precedence = Precedence()
        self.summaries = Summaries(
            store, root=str(volume.root), directory=str(volume.root / ".dumpagent" / "summaries"), begin=self._begin,
            precedence=self.precedence, tell=self._tell, stop=self.stop, least_free=0.3,
            prefix=prefix, now=lambda: now,
        )  # fmt: skip
        self.summaries.load()
        self.on_begin: Callable[[], object] = lambda: None

    def _tell(self, event: Event, /) -> None:
        self.told(event)
        if event.level == "warning":
            self.stop.set()  # it would wait for half a minute

    def _begin(self, opened: OpenFile, size_bytes: int) -> Process:
        self.begun.append(opened.read_at(0, size_bytes))
        self.on_begin()
        return self.process

    def add(self, job: Job) -> None:
        dump = job.dump
        receipt = Receipt(
            dump.identity,
            dump.path,
            "bucket",
            f"dumps/{dump.relpath}",
            7,
            dump.size_bytes,
            1.0,
            True,
            sent_bytes=9,
        )
        self.summaries.add(dump, job.verdict, receipt)

    def notes(self) -> list[str]:
        folder = self.volume.root / ".dumpagent" / "summaries"
        return sorted(os.listdir(folder)) if folder.exists() else []


@pytest.fixture
def job(volume: Volume) -> Job:
    volume.dump("shop/a.hprof", b"JAVA PROFILE 1.0.2\0 and more")
    return volume.job("shop/a.hprof")


def reports(store: MemoryStore) -> dict[str, Any]:
    return {key: json.loads(content) for key, content in contents(store).items()}


def test_a_report_lies_beside_the_dump_and_its_lines_are_told(
    volume: Volume, store: MemoryStore, job: Job
) -> None:
    agent = Agent(volume, store)
    agent.add(job)
    agent.summaries.step()
    (told,) = agent.told.of("dump_summarised")
    assert told["report"] == "dumps/shop/a.hprof.report.json"
    assert told["lines"] == ("held by: x", "classes: y", "heap: z")
    (report,) = reports(store).values()
    assert report["version"] == 1
    assert report["dump"]["key"] == "dumps/shop/a.hprof"
    assert agent.notes() == []
    assert agent.process.closed


def test_a_report_that_is_there_stays_and_is_not_made_again(
    volume: Volume, store: MemoryStore, job: Job
) -> None:
    store.put("dumps/shop/a.hprof.report.json", ANOTHERS, {})
    agent = Agent(volume, store)
    agent.add(job)
    agent.summaries.step()
    assert agent.begun == []
    assert reports(store) == {"dumps/shop/a.hprof.report.json": {"of": "another"}}
    assert agent.notes() == []


def test_a_report_that_came_meanwhile_is_not_written_over(
    volume: Volume, store: MemoryStore, job: Job
) -> None:
    agent = Agent(volume, store)
    agent.on_begin = lambda: store.put("dumps/shop/a.hprof.report.json", ANOTHERS, {})
    agent.add(job)
    agent.summaries.step()
    assert reports(store) == {"dumps/shop/a.hprof.report.json": {"of": "another"}}


def test_what_a_kill_cut_off_is_made_after_the_restart(volume: Volume, store: MemoryStore, job: Job) -> None:
    Agent(volume, store).add(job)
    restarted = Agent(volume, store)
    restarted.summaries.step()
    assert list(reports(store)) == ["dumps/shop/a.hprof.report.json"]
    assert restarted.notes() == []


def test_a_summary_that_ends_the_agent_twice_is_not_tried_a_third_time(
    volume: Volume, store: MemoryStore, job: Job
) -> None:
    class Killed(BaseException):
        pass

    def kill(_seconds: float) -> bool:
        raise Killed

    agent = Agent(volume, store)
    agent.add(job)
    for _ in range(2):
        agent.process.wait = kill  # type: ignore[method-assign]
        with pytest.raises(Killed):
            agent.summaries.step()
        agent = Agent(volume, store)
    agent.summaries.step()
    assert agent.begun == []
    (skipped,) = agent.told.of("summary_skipped")
    assert "2 attempts" in str(skipped["reason"])
    assert agent.notes() == []


def test_a_stop_counts_as_no_attempt(volume: Volume, store: MemoryStore, job: Job) -> None:
    for _ in range(3):
        agent = Agent(volume, store)
        agent.add(job)
        agent.process.ends = False
        agent.on_begin = agent.stop.set
        agent.summaries.step()
        assert agent.process.closed
        assert len(agent.begun) == 1
    last = Agent(volume, store)
    last.summaries.step()
    assert list(reports(store)) == ["dumps/shop/a.hprof.report.json"]


def test_a_process_that_fails_is_told_and_tried_once_more(
    volume: Volume, store: MemoryStore, job: Job
) -> None:
    agent = Agent(volume, store, answer=Refused("its process was ended by SIGKILL"))
    agent.add(job)
    agent.summaries.step()
    (failed,) = agent.told.of("summary_failed")
    assert failed["error"] == "its process was ended by SIGKILL"
    agent.stop.clear()
    agent.summaries.step()
    agent.stop.clear()
    agent.summaries.step()
    assert len(agent.begun) == 2
    assert agent.told.names()[-1] == "summary_skipped"


def test_lines_are_told_although_the_store_refuses_the_report(
    volume: Volume, store: MemoryStore, job: Job
) -> None:
    agent = Agent(volume, RefusingReports(store))  # type: ignore[arg-type]
    agent.add(job)
    agent.summaries.step()
    (told,) = agent.told.of("dump_summarised")
    assert told["report"] is None
    assert "s3:PutObject" in str(agent.told.of("summary_failed")[0]["hint"])
    assert agent.notes() == []


class RefusingReports:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def look(self, key: str) -> object:
        return self._store.look(key)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        return self._store.objects(prefix)

    def put(self, key: str, body: Body, metadata: dict[str, str]) -> None:
        raise Refused("403")


def test_a_dump_that_was_deleted_at_once_is_summarised_all_the_same(
    volume: Volume, store: MemoryStore, job: Job
) -> None:
    """LOCAL_KEEP=until-uploaded: the next dump in line is held open."""
    agent = Agent(volume, store)
    agent.add(job)
    os.unlink(job.dump.path)
    agent.summaries.step()
    assert list(reports(store)) == ["dumps/shop/a.hprof.report.json"]


def test_a_deleted_dump_whose_space_is_needed_is_let_go(volume: Volume, store: MemoryStore, job: Job) -> None:
    agent = Agent(volume, store)
    agent.summaries._least_free = 1.1
    agent.add(job)
    os.unlink(job.dump.path)
    agent.process.ends = False
    agent.summaries.step()
    (skipped,) = agent.told.of("summary_skipped")
    assert "space" in str(skipped["reason"])
    assert agent.process.closed


def test_another_file_of_that_name_is_not_summarised(volume: Volume, store: MemoryStore, job: Job) -> None:
    Agent(volume, store).add(job)
    os.unlink(job.dump.path)
    volume.dump("shop/a.hprof", b"JAVA PROFILE 1.0.2\0 and something else")
    agent = Agent(volume, store)
    agent.summaries.step()
    assert agent.begun == []
    assert agent.told.names() == ["summary_skipped"]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 9, "identity": {}}', b"\xff" * 90]
)
def test_rubbish_among_the_notes_does_no_harm(volume: Volume, store: MemoryStore, content: bytes) -> None:
    folder = volume.root / ".dumpagent" / "summaries"
    folder.mkdir(parents=True)
    (folder / "1-2-3.json").write_bytes(content)
    agent = Agent(volume, store)
    agent.summaries.step()
    assert agent.told.names() == []


def test_what_is_no_dump_is_not_summarised(volume: Volume, store: MemoryStore) -> None:
    volume.dump("junk.hprof", b"junk")
    found = volume.job("junk.hprof")
    agent = Agent(volume, store)
    agent.add(Job(found.dump, Verdict(State.NOT_A_DUMP, "junk", due=True)))
    assert agent.notes() == []


def test_a_summary_stands_still_while_anybody_works_on_a_dump() -> None:
    precedence, process = Precedence(), Process(ANSWER)
    with precedence.taken(), precedence.given_by(process):
        assert process.paused
        with precedence.taken():
            pass
        assert process.paused
    assert not Process(ANSWER).paused
    second = Process(ANSWER)
    with precedence.given_by(second):
        assert not second.paused
        with precedence.taken():
            assert [second.paused] == [True]
        assert [second.paused] == [False]
    with precedence.taken():
        assert [second.paused] == [False]


def test_a_store_that_is_away_is_waited_for(
    volume: Volume, store: MemoryStore, job: Job, tmp_path: Path
) -> None:
    class Away(RefusingReports):
        def put(self, key: str, body: Body, metadata: dict[str, str]) -> None:
            agent.stop.set()
            raise Unreachable("no answer")

    agent = Agent(volume, Away(store))  # type: ignore[arg-type]
    agent.add(job)
    agent.summaries.step()
    assert agent.told.names() == []
    assert len(agent.notes()) == 1


def test_what_grew_since_the_last_dump_of_the_workload_is_a_fourth_line(
    volume: Volume, store: MemoryStore, job: Job
) -> None:
    facts = {
        "surveyed_percent": 100, "damage": None, "layout": "x", "owner": None, "version": 1, "cpu_s": 1.5, "objects": 9,
    }  # fmt: skip

    def holding(size_bytes: int) -> dict[str, Any]:
        return {
            **facts,
            "shallow_bytes": size_bytes,
            "classes": [{"name": "byte[]", "shallow_bytes": size_bytes}],
        }

    before = {
        **holding(3 << 20),
        "dump": {
            "jvm": job.verdict.facts and job.verdict.facts.jvm,
            "key": "k",
            "dump_time": "2026-11-28T00:00:00Z",
        },
    }
    now = 1_796_000_000
    for key, when in (("shop/old.hprof", now - 9000), ("shop/a.hprof", now - 60), ("bar/a.hprof", now - 500)):
        entry = entry_of(key, 7, DumpMetadata(dumped=float(when), verdict="complete"), stored_at=when)
        write_entry(store, entry, prefix="dumps")
    content = json.dumps(before).encode()
    store.put("dumps/shop/old.hprof.report.json", Body(content, zlib.crc32(content)), {})
    agent = Agent(volume, store, answer={**ANSWER, "report": holding(8 << 20)}, prefix="dumps", now=now)
    agent.add(job)
    agent.summaries.step()
    (told,) = agent.told.of("dump_summarised")
    assert told["lines"] == (
        *ANSWER["lines"],
        "since the dump of 2026-11-28T00:00:00Z: heap +5.0 MiB, byte[] +5.0 MiB",
    )
    assert reports(store)["dumps/shop/a.hprof.report.json"]["growth"]["grown_bytes"] == 5 << 20


def test_one_pass_makes_its_summaries_and_tells_which_it_leaves_out(
    volume: Volume, store: MemoryStore
) -> None:
    agent = Agent(volume, store)
    for name in ("a", "b", "c"):
        volume.dump(f"shop/{name}.hprof", b"JAVA PROFILE 1.0.2\0 and more")
        agent.add(volume.job(f"shop/{name}.hprof"))
    agent.summaries.finish(lambda: len(agent.begun) >= 2)
    assert len(agent.told.of("dump_summarised")) == 2
    assert len(agent.told.of("summary_skipped")) == 1


def test_a_user_s_flood_of_dumps_costs_another_user_no_summary(volume: Volume, store: MemoryStore) -> None:
    """Before, the first 200 dumps were summarised, whosever they were, and all others skipped."""
    agent = Agent(volume, store)
    for number in range(210):
        volume.dump(f"flood/{number}.hprof", b"JAVA PROFILE 1.0.2\0 and more")
        agent.add(volume.job(f"flood/{number}.hprof"))
    volume.dump("shop/a.hprof", b"JAVA PROFILE 1.0.2\0 of the shop")
    agent.add(volume.job("shop/a.hprof"))
    skipped = [str(each["path"]).removeprefix(f"{volume.root}/") for each in agent.told.of("summary_skipped")]
    assert skipped == [*(f"flood/{number}.hprof" for number in range(200, 210)), "flood/199.hprof"]
    assert len(agent.notes()) == 200
    for _ in range(2):
        agent.summaries.step()
    assert "dumps/shop/a.hprof.report.json" in reports(store)
