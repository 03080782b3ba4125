"""A stored dump is told with the thread that ran out of memory; nobody waits long for one that cannot be found."""

from __future__ import annotations

import threading

from dumpagent.dumps.model import Cause, DumpFacts, DumpFile, State, Verdict
from dumpagent.hprof.thread import KeepOn
from dumpagent.upload.oom_thread import OomThreadSearch
from dumpagent.upload.volume.scan import scan
from tests.harness.hprof import Maker
from tests.harness.stores.memory import MemoryStore
from tests.harness.threads import NamedThread
from tests.unit.upload.conftest import Told, Volume
from tests.unit.upload.test_loop import loop_on

NAMED = NamedThread(Maker(), b"http-8080-exec-1")
OOM = Verdict(State.COMPLETE, "a test says so", due=True, facts=DumpFacts(cause=Cause.OOM))
LONG_S = 60.0


def found(volume: Volume) -> DumpFile:
    (dump,) = scan(str(volume.root)).dumps
    return dump


def test_a_stored_dump_is_told_with_the_thread_that_ran_out_of_memory(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("java_pid1.hprof", NAMED.dump())
    loop_on(volume, store, told).run_once()
    (uploaded,) = told.of("dump_uploaded")
    assert uploaded["oom_thread"] == "http-8080-exec-1"


def test_a_dump_that_tells_of_no_thread_is_told_without(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("java_pid1.hprof", Maker().dump())
    volume.dump("java_pid2.hprof", Maker().dump(oom=False))
    loop_on(volume, store, told).run_once()
    assert [each["oom_thread"] for each in told.of("dump_uploaded")] == [None, None]


def test_a_dump_on_request_costs_no_search(volume: Volume) -> None:
    volume.dump("java_pid1.hprof", NAMED.dump())
    asked = Verdict(State.COMPLETE, "a test says so", due=True, facts=DumpFacts(cause=Cause.REQUEST))
    assert OomThreadSearch(found(volume), asked).name(wait_s=LONG_S) is None


def test_a_search_that_costs_too_much_is_given_up(volume: Volume) -> None:
    volume.dump("java_pid1.hprof", NAMED.dump())
    assert OomThreadSearch(found(volume), OOM, cpu_s=0.0).name(wait_s=LONG_S) is None


def test_nobody_waits_for_a_search_longer_than_said(volume: Volume) -> None:
    """A volume that hangs, or a fifth of a core."""
    volume.dump("java_pid1.hprof", NAMED.dump())
    answered = threading.Event()

    def find(_dump: DumpFile, _keep_on: KeepOn) -> str:
        answered.wait(LONG_S)
        return "too late"

    assert OomThreadSearch(found(volume), OOM, find=find).name(wait_s=0.1) is None
    answered.set()


def test_a_dump_that_is_gone_or_another_one_has_no_thread(volume: Volume) -> None:
    volume.dump("java_pid1.hprof", NAMED.dump())
    dump = found(volume)
    path = volume.root / "java_pid1.hprof"
    path.rename(volume.root / "other.hprof")
    assert OomThreadSearch(dump, OOM).name(wait_s=LONG_S) is None
    path.write_bytes(NAMED.dump())
    assert OomThreadSearch(dump, OOM).name(wait_s=LONG_S) is None
