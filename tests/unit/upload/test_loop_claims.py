"""What the loop does with names: a due dump is renamed before it goes, and its object keeps the name it was given."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from dumpagent.dumps.model import DumpFacts, DumpFile
from dumpagent.settings import Place
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import Pass, UploadLoop
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.claim import CannotClaim, StillWritten, claim
from dumpagent.upload.volume.judge import CompletenessJudge
from tests.harness.hprof import Maker
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, Told, Volume, contents

CLAIMED = "java_pid1.20260101T120000Z"
MAKE = Maker()


def loop_on(
    volume: Volume,
    store: MemoryStore,
    told: Told,
    claiming: Callable[[DumpFile, DumpFacts | None], DumpFile] = claim,
    *,
    quiet_s: float = 0,
    clock: Callable[[], float] = time.monotonic,
) -> UploadLoop:
    ledger = Ledger(f"{volume.root}/.dumpagent", store=store.name)
    ledger.load()
    return UploadLoop(
        root=str(volume.root),
        store=store,
        ledger=ledger,
        uploader=Uploader(store, Place(node_name="n"), part_bytes=PART),
        judge=CompletenessJudge(quiet_s=quiet_s, monotonic=clock),
        monotonic=clock,
        tell=told,
        stop=threading.Event(),
        retention_days=7,
        claim=claiming,
    )


def names(volume: Volume, below: str = "app") -> list[str]:
    return sorted(path.name for path in (volume.root / below).iterdir())


def test_a_complete_dump_frees_its_name_and_is_stored_under_it(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("app/java_pid1.hprof", MAKE.dump())
    assert loop_on(volume, store, told).run_once() == Pass(uploaded=1)
    assert names(volume) == [f"{CLAIMED}.hprof"]
    assert contents(store) == {"app/java_pid1.hprof": MAKE.dump()}
    assert told.of("dump_claimed")[0]["claimed_path"] == f"{volume.root}/app/{CLAIMED}.hprof"
    assert loop_on(volume, store, told).run_once() == Pass()


def test_the_next_dump_of_the_same_name_and_second_gets_a_key_of_its_own(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    wanted = []
    for segments in (1, 2, 3):
        wanted.append(MAKE.dump(segments=segments))
        volume.dump("app/java_pid1.hprof", wanted[-1])
        assert loop_on(volume, store, told).run_once() == Pass(uploaded=1)
    assert sorted(contents(store).values()) == sorted(wanted)
    assert names(volume) == [f"{CLAIMED}-2.hprof", f"{CLAIMED}-3.hprof", f"{CLAIMED}.hprof"]


def test_a_killed_jvms_stub_and_part_are_claimed_and_stored_together(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("app/java_pid1.hprof", MAKE.head())
    volume.dump("app/java_pid1.hprof.p0", b"most of the heap")
    assert loop_on(volume, store, told).run_once() == Pass(uploaded=2)
    assert names(volume) == [f"{CLAIMED}.hprof", f"{CLAIMED}.hprof.p0"]
    assert contents(store) == {
        "app/java_pid1.hprof": MAKE.head(),
        "app/java_pid1.hprof.p0": b"most of the heap",
    }
    for key in contents(store):
        found = store.look(key)
        assert found is not None
        assert found.metadata is not None
        assert found.metadata["verdict"] == "truncated"
        assert found.metadata["dump-time"] == "2026-01-01T12:00:00Z"
    assert loop_on(volume, store, told).run_once() == Pass()
    assert "dump_gone" not in told.names()


def test_a_part_is_stored_even_if_the_agent_was_stopped_after_its_stub(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump(f"app/{CLAIMED}.hprof", MAKE.head())
    loop_on(volume, store, told).run_once()
    volume.dump(f"app/{CLAIMED}.hprof.p0", b"most of the heap")
    assert loop_on(volume, store, told).run_once() == Pass(uploaded=1)
    assert contents(store)["app/java_pid1.hprof.p0"] == b"most of the heap"


def test_a_part_whose_stub_is_gone_is_stored_and_frees_its_name(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("app/java_pid1.hprof.p0", b"most of the heap")
    assert loop_on(volume, store, told).run_once() == Pass(uploaded=1)
    assert contents(store) == {"app/java_pid1.hprof.p0": b"most of the heap"}
    assert "java_pid1.hprof.p0" not in names(volume)


def test_the_parts_of_a_dump_in_the_making_are_not_touched(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("app/java_pid1.hprof", MAKE.head())
    volume.dump("app/java_pid1.hprof.p0", b"x")
    with (volume.root / "app" / "java_pid1.hprof").open("ab"):
        assert loop_on(volume, store, told).run_once() == Pass(waiting=1)
    assert names(volume) == ["java_pid1.hprof", "java_pid1.hprof.p0"]
    assert contents(store) == {}


def test_a_volume_that_does_not_let_us_rename_is_told_of_once_and_uploads_go_on(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    def refuse(_dump: DumpFile, _facts: DumpFacts | None) -> DumpFile:
        raise CannotClaim("cannot be renamed: Permission denied", hint="do this")

    for number in range(3):
        volume.dump(f"app/java_pid{number}.hprof", MAKE.dump(segments=1 + number))
    assert loop_on(volume, store, told, refuse).run_once() == Pass(uploaded=3)
    assert names(volume) == ["java_pid0.hprof", "java_pid1.hprof", "java_pid2.hprof"]
    assert told.names().count("claim_failed") == 1
    assert told.of("claim_failed")[0]["hint"] == "do this"


def test_a_dump_that_is_taken_up_while_it_is_claimed_waits(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    def refuse(_dump: DumpFile, _facts: DumpFacts | None) -> DumpFile:
        raise StillWritten("open for writing")

    volume.dump("java_pid1.hprof", MAKE.dump())
    loop = loop_on(volume, store, told, refuse)
    assert loop.look() is not None
    assert loop.counts.pending == 1
    assert loop.upload_next(timeout_s=0) is None


def test_a_file_that_an_event_names_is_taken_up_without_a_scan(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    loop = loop_on(volume, store, told)
    loop.look()
    volume.dump("app/java_pid1.hprof", MAKE.dump())
    loop.look_at({"app/java_pid1.hprof", "app/gone.hprof", "app"})
    assert loop.upload_next(timeout_s=0) is not None
    assert contents(store) == {"app/java_pid1.hprof": MAKE.dump()}
    loop.look_at({f"app/{CLAIMED}.hprof"})  # the event of our own rename
    assert loop.upload_next(timeout_s=0) is None
    assert loop.look() is None
    assert told.names().count("dump_found") == 1


def test_the_name_of_a_cut_dump_is_free_within_two_seconds_and_the_next_dump_is_not_lost(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """Killed in its dump, restarted, out of memory ten seconds later: both dumps are stored, each under its own key."""
    now = [1000.0]
    cut, whole = MAKE.dump(segments=3)[:-20], MAKE.dump(segments=2)
    loop = loop_on(volume, store, told, quiet_s=120, clock=lambda: now[0])
    volume.dump("app/java_pid1.hprof", cut)
    loop.look()
    now[0] += 1.5
    loop.look_again()
    assert names(volume) == [f"{CLAIMED}.hprof"]
    assert loop.counts.pending == 1
    volume.dump("app/java_pid1.hprof", whole)
    now[0] += 8.5
    loop.look()
    while loop.upload_next(timeout_s=0):
        pass
    assert contents(store) == {"app/java_pid1.hprof": whole}
    now[0] += 120
    loop.look()
    while loop.upload_next(timeout_s=0):
        pass
    assert contents(store) == {"app/java_pid1.hprof": whole, f"app/{CLAIMED}.hprof": cut}
    assert len(told.of("dump_claimed")) == 2
    counts = loop.counts
    assert (counts.seen, counts.uploaded, counts.failed) == (2, 2, 0)


def test_a_dump_of_any_name_is_claimed_and_stored_and_so_is_the_next_one_of_that_name(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    first, second = MAKE.dump(segments=2), MAKE.dump(segments=3)
    for content in (first, second):
        volume.dump("app/heap", content)
        assert loop_on(volume, store, told).run_once() == Pass(uploaded=1)
    assert names(volume) == ["heap.20260101T120000Z", "heap.20260101T120000Z-2"]
    assert contents(store) == {"app/heap": first, "app/heap.20260101T120000Z": second}
    assert loop_on(volume, store, told).run_once() == Pass()


def test_a_dump_of_openj9_is_stored_as_one_of_which_nobody_knows_whether_it_is_complete(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    volume.dump("app/heapdump.20260101.120000.1.0001.phd", b"\x00\x12portable heap dump" + bytes(100))
    assert loop_on(volume, store, told).run_once() == Pass(uploaded=1)
    (stored,) = told.of("dump_uploaded")
    assert (stored["verdict"], "OpenJ9" in str(stored["reason"])) == ("unknown", True)


def test_a_rescued_dump_is_uploaded_at_once(volume: Volume, store: MemoryStore, told: Told) -> None:
    """The rescue links it into place: its name is created with its bytes, and nothing is closed."""
    loop = loop_on(volume, store, told)
    loop.look()
    volume.dump("app/java_pid1.hprof", MAKE.dump())
    volume.dump("app/begun.hprof", b"")
    loop.look_at((), created=["app/java_pid1.hprof", "app/begun.hprof"])
    assert loop.counts.seen == 1
    assert loop.upload_next(timeout_s=0)
    assert list(contents(store)) == ["app/java_pid1.hprof"]


def test_a_core_file_is_told_once_and_left_alone(volume: Volume, store: MemoryStore, told: Told) -> None:
    volume.dump("app/core.1", b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00\x3e\x00" + bytes(100))
    loop = loop_on(volume, store, told)
    for _ in range(3):
        loop.look()
    (left,) = told.of("file_left_alone")
    assert left["path"] == f"{volume.root}/app/core.1"
    assert loop.counts.seen == 0
