"""The order of things: what is due goes, what is not waits, what fails holds up nobody and is told once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping

from dumpagent.errors import Refused, Unreachable
from dumpagent.settings import Place
from dumpagent.store.protocol import Body, Store, StoredObject
from dumpagent.upload.backlog import Backlog
from dumpagent.upload.keeping.reclaim import Turn
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import Pass, UploadLoop
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.judge import CompletenessJudge
from dumpagent.upload.volume.scan import scan
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, SMALL_LIMITS, Told, Volume, contents, some_bytes


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def loop_on(
    volume: Volume,
    store: Store,
    told: Told,
    *,
    quiet_s: float = 0,
    retention_days: float = 7,
    clock: Clock | None = None,
) -> UploadLoop:
    clock = clock or Clock()
    ledger = Ledger(f"{volume.root}/.dumpagent", store=store.name)
    ledger.load()
    # A wall clock far behind every file: only having been seen to stand still counts.
    judge = CompletenessJudge(quiet_s=quiet_s, now=lambda: 0.0, monotonic=clock)
    return UploadLoop(
        root=str(volume.root),
        store=store,
        ledger=ledger,
        uploader=Uploader(store, Place(node_name="n"), part_bytes=PART),
        judge=judge,
        tell=told,
        stop=threading.Event(),
        retention_days=retention_days,
        monotonic=clock,
    )


def test_one_pass_brings_what_is_due_and_a_second_one_nothing(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    wanted = {
        volume.dump(f"app-{number}/java_pid1.hprof", (content := some_bytes(3000))): content
        for number in range(3)
    }
    assert loop_on(volume, store, told).run_once() == Pass(uploaded=3)
    assert contents(store) == wanted
    assert loop_on(volume, store, told).run_once() == Pass()
    assert told.names().count("dump_uploaded") == 3


def test_nothing_is_told_of_a_pass_without_news(volume: Volume, store: MemoryStore, told: Told) -> None:
    volume.dump("java_pid1.hprof", b"x")
    loop = loop_on(volume, store, told)
    loop.run_once()
    told.events.clear()
    for _ in range(5):
        loop.look()
        assert loop.upload_next(timeout_s=0) is None
    assert told.events == []


def test_a_dump_that_still_grows_waits_until_it_stood_still(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    clock = Clock()
    loop = loop_on(volume, store, told, quiet_s=120, clock=clock)
    for size in (10, 20, 30):
        volume.dump("java_pid1.hprof", some_bytes(size))
        assert loop.look() == 120
        clock.now += 100
        loop.look()
        assert loop.upload_next(timeout_s=0) is None
    clock.now += 20
    loop.look()
    loop.upload_next(timeout_s=0)
    assert [len(content) for content in contents(store).values()] == [30]


def test_one_pass_says_which_dumps_it_leaves_for_later_and_why(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("java_pid1.hprof", b"x")
    assert loop_on(volume, store, told, quiet_s=120).run_once() == Pass(waiting=1)
    (waiting,) = told.of("dump_waiting")
    assert "120 s" in str(waiting["reason"])


class _RefusesOne(MemoryStore):
    def put(self, key: str, body: Body, metadata: Mapping[str, str]) -> None:
        if "bad" in key:
            raise Refused("writing bad.hprof: the store answered 400 InvalidRequest", hint="do this")
        super().put(key, body, metadata)


def test_a_dump_that_is_refused_holds_up_nobody_and_is_told_once(volume: Volume, told: Told) -> None:
    store = _RefusesOne(limits=SMALL_LIMITS)
    for name in ("bad.hprof", "good-1.hprof", "good-2.hprof"):
        volume.dump(name, name.encode())
    os.utime(volume.root / "bad.hprof", (1, 1))
    clock = Clock()
    loop = loop_on(volume, store, told, clock=clock)
    assert loop.run_once() == Pass(uploaded=2, failed=1)
    for _ in range(20):
        clock.now += 20
        loop.look()
        loop.upload_next(timeout_s=0)
    assert set(contents(store)) == {"good-1.hprof", "good-2.hprof"}
    (failed,) = told.of("upload_failed")
    assert failed["hint"] == "do this"
    assert loop.counts.pending == 1


class _Down(MemoryStore):
    down = True

    def look(self, key: str) -> StoredObject | None:
        if self.down:
            raise Unreachable("looking: no answer", hint="wait")
        return super().look(key)


def test_a_store_that_is_down_is_one_trouble_and_everything_arrives_when_it_is_back(
    volume: Volume, told: Told
) -> None:
    store = _Down(limits=SMALL_LIMITS)
    for number in range(5):
        volume.dump(f"{number}.hprof", b"x%d" % number)
    clock = Clock()
    loop = loop_on(volume, store, told, clock=clock)
    loop.look()
    for _ in range(30):
        loop.upload_next(timeout_s=0)
        clock.now += 10
    assert len(told.of("store_failed")) == 1
    assert told.of("upload_failed") == []
    assert loop.counts.pending == 5
    store.down = False
    for _ in range(30):
        clock.now += 60
        loop.upload_next(timeout_s=0)
    assert len(contents(store)) == 5
    assert len(told.of("store_recovered")) == 1
    assert loop.counts.pending == 0


def test_a_refusal_of_the_whole_store_is_told_as_such(volume: Volume, told: Told) -> None:
    class NoBucket(MemoryStore):
        def check(self) -> None:
            raise Refused("listing: the store answered 404 NoSuchBucket", hint="create the bucket")

        def look(self, key: str) -> StoredObject | None:
            raise Refused(f"looking at {key}: 404", hint="")

    for number in range(3):
        volume.dump(f"{number}.hprof", b"x")
    loop = loop_on(volume, NoBucket(limits=SMALL_LIMITS), told)
    assert loop.run_once().failed == 3
    assert [failed["hint"] for failed in told.of("store_failed")] == ["create the bucket"]
    assert told.of("upload_failed") == []


def test_a_dump_that_vanishes_before_it_is_stored_is_told(volume: Volume, told: Told) -> None:
    store = _Down(limits=SMALL_LIMITS)
    volume.dump("java_pid1.hprof", b"x")
    loop = loop_on(volume, store, told)
    loop.look()
    loop.upload_next(timeout_s=0)
    os.unlink(volume.root / "java_pid1.hprof")
    loop.look()
    assert [gone["path"] for gone in told.of("dump_gone")] == [f"{volume.root}/java_pid1.hprof"]
    assert (loop.counts.seen, loop.counts.failed, loop.counts.pending) == (1, 1, 0)


def test_a_new_dump_under_an_old_name_is_a_new_dump(volume: Volume, store: MemoryStore, told: Told) -> None:
    first, second = some_bytes(100), some_bytes(100)
    volume.dump("java_pid1.hprof", first)
    loop = loop_on(volume, store, told)
    loop.run_once()
    os.unlink(volume.root / "java_pid1.hprof")
    volume.dump("java_pid1.hprof", second)
    loop.run_once()
    assert sorted(contents(store).values()) == sorted([first, second])


def test_a_lost_volume_is_told_and_nothing_is_concluded_from_it(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("java_pid1.hprof", b"x")
    loop = loop_on(volume, store, told, retention_days=0)
    loop.run_once()
    os.rename(volume.root, f"{volume.root}.away")
    loop.look()
    assert len(told.of("scan_failed")) == 1
    assert told.of("receipts_pruned") == []
    os.rename(f"{volume.root}.away", volume.root)
    loop.look()
    assert len(told.of("scan_recovered")) == 1
    assert loop.upload_next(timeout_s=0) is None


def test_a_dry_run_changes_nothing_and_says_what_would_happen(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("known.hprof", b"known")
    loop_on(volume, store, told).run_once()
    before = sorted(path.name for path in volume.root.rglob("*"))
    volume.dump("new.hprof", b"new")
    told.events.clear()
    # Without the receipts, so that the store has to be asked.
    dry = loop_on(volume, store, told)
    dry._ledger._receipts.clear()
    dry.run_once(dry_run=True)
    assert {(str(fields["key"]), str(fields["action"])) for fields in told.of("dump_would_upload")} == {
        ("known.hprof", "nothing: the store holds it already"),
        ("new.hprof", "upload"),
    }
    assert set(contents(store)) == {"known.hprof"}
    assert sorted(path.name for path in volume.root.rglob("*")) == sorted([*before, "new.hprof"])


def test_going_over_many_stored_dumps_gives_way_to_a_dump_that_waits(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """30,000 stored dumps of one user kept the next upload waiting for minutes, a question to the store for each."""
    for number in range(20):
        volume.dump(f"t/{number}.hprof", b"x")
    stop, backlog = threading.Event(), Backlog(monotonic=time.monotonic)
    clock = iter(range(1000))
    turn = Turn(stop, backlog, monotonic=lambda: float(next(clock)))
    assert not turn.is_over()
    dumps = scan(str(volume.root)).dumps
    backlog.update(dumps, stored=lambda _identity: False, everything=True)
    assert turn.is_over()
