"""The files beside a dump reach the store with it, never before it, never twice, and never delay it."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from dumpagent.observe.events import Tell
from dumpagent.settings import Keep, Keeping, Place
from dumpagent.store.protocol import Body, Part
from dumpagent.upload.companions.companions import Travel
from dumpagent.upload.companions.finder import CompanionLimits
from dumpagent.upload.keeping.deletion import Deletion
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import UploadLoop
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.claim import claim
from dumpagent.upload.volume.judge import CompletenessJudge
from tests.harness.hprof import Maker
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, SMALL_LIMITS, Told, Volume, contents, some_bytes

MAKE = Maker()
FOLDER = "app/java_pid1.20260101T120000Z.companions/"
KEYS = [f"{FOLDER}gc.log", f"{FOLDER}hs_err_pid1.log", f"{FOLDER}rec.jfr", "app/java_pid1.hprof"]


class Scene:
    """An agent on a volume whose clock the test sets; all files are as old as they are."""

    def __init__(self, volume: Volume, store: MemoryStore, told: Told, *, limits: CompanionLimits | None = None,
                 keep: Keep = Keep.ALWAYS) -> None:  # fmt: skip
        self.volume, self.store, self.told, self.clock = volume, store, told, 1000.0
        self.stop = threading.Event()
        self.ledger = Ledger(f"{volume.root}/.dumpagent", store=store.name)
        self.ledger.load()

        def deletion(tell: Tell) -> Deletion:
            return Deletion(
                Keeping(local_keep=keep), root=str(volume.root), store=store, ledger=self.ledger, tell=tell
            )

        self.loop = UploadLoop(
            root=str(volume.root),
            store=store,
            ledger=self.ledger,
            uploader=Uploader(store, Place(node_name="n"), part_bytes=PART),
            judge=CompletenessJudge(quiet_s=120, monotonic=self.now),
            tell=told,
            stop=self.stop,
            retention_days=7,
            claim=claim,
            travel=Travel(
                uploader=lambda event: Uploader(store, Place(node_name="n"), part_bytes=PART, stop=event),
                limits=limits or CompanionLimits(1 << 20, 50),
                quiet_s=120,
                deletion=deletion,
            ),
            monotonic=self.now,
        )

    def now(self) -> float:
        return self.clock

    def file(self, name: str, content: bytes) -> str:
        path = self.volume.dump(name, content)
        os.utime(self.volume.root / path)
        return path

    def dump(self, segments: int = 1) -> bytes:
        content = MAKE.dump(segments=segments)
        self.file("app/java_pid1.hprof", content)
        return content

    def run(self, seconds: float = 15) -> list[str]:
        """Let the time pass, scan, and upload all that is due; give the keys in the order in which they came."""
        before = set(contents(self.store))
        came: list[str] = []
        self.loop.look(whole=True)
        self.clock += seconds
        self.loop.look(whole=True)
        while self.loop.upload_next(timeout_s=0) or self.loop.upload_companion():
            came += sorted(set(contents(self.store)) - before - set(came))
        return came


@pytest.fixture
def scene(volume: Volume, store: MemoryStore, told: Told) -> Scene:
    return Scene(volume, store, told)


def test_the_files_beside_a_dump_come_after_it_error_files_first_then_the_small_ones(scene: Scene) -> None:
    wanted = {"app/java_pid1.hprof": scene.dump()}
    for name, size in (("rec.jfr", 3000), ("gc.log", 500), ("hs_err_pid1.log", 800)):
        wanted[FOLDER + name] = some_bytes(size)
        scene.file(f"app/{name}", wanted[FOLDER + name])
    assert scene.run() == ["app/java_pid1.hprof", KEYS[1], KEYS[0], KEYS[2]]
    assert contents(scene.store) == wanted
    assert scene.run() == []
    counts = scene.loop.counts
    assert (counts.seen, counts.uploaded, counts.pending) == (1, 1, 0)
    assert scene.loop.companions is not None
    beside = scene.loop.companions.counts
    assert (beside.seen, beside.uploaded, beside.failed, beside.pending) == (3, 3, 0, 0)
    assert len(scene.told.of("companion_uploaded")) == 3


def test_after_a_restart_with_its_state_lost_nothing_is_stored_twice(
    scene: Scene, volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene.dump()
    scene.file("app/gc.log", b"pause 1\n" * 300)
    scene.run()
    before = contents(store)
    for path in (volume.root / ".dumpagent" / "receipts").iterdir():
        path.unlink()
    again = Scene(volume, store, told)
    assert again.run() == []
    assert contents(store) == before


def test_logs_without_a_dump_stay_and_an_error_file_without_one_is_stored(scene: Scene) -> None:
    """The GC logs of every application that runs well are nobody's evidence."""
    scene.file("app/gc.log", b"pause")
    scene.file("app/rec.jfr", b"jfr")
    scene.file("app/hs_err_pid1.log", b"SIGSEGV")
    (key,) = scene.run()
    assert key.startswith("app/hs_err_pid1.")
    assert key.endswith(".companions/hs_err_pid1.log")


def test_a_log_that_lay_there_before_its_dump_is_taken_when_the_dump_comes(scene: Scene) -> None:
    scene.file("app/gc.log", b"pause")
    assert scene.run() == []
    scene.dump()
    assert scene.run() == ["app/java_pid1.hprof", f"{FOLDER}gc.log"]


def test_a_log_that_its_jvm_has_open_is_sent_once_it_rests(scene: Scene) -> None:
    scene.dump()
    with (scene.volume.root / "app" / "gc.log").open("ab", buffering=0) as log:
        for _ in range(5):
            log.write(b"pause\n")
            assert f"{FOLDER}gc.log" not in scene.run(60)
        assert scene.run(121) == [f"{FOLDER}gc.log"]


def test_a_log_goes_once_with_each_dump_however_long_it_grows(scene: Scene) -> None:
    scene.dump()
    scene.file("app/gc.log", b"pause 1\n")
    scene.run()
    for number in range(5):
        scene.file("app/gc.log", b"pause\n" * (number + 2))
        assert scene.run() == []
    assert contents(scene.store)[f"{FOLDER}gc.log"] == b"pause 1\n"
    assert not scene.told.of("companion_gone")


def test_an_error_file_that_is_written_again_gets_a_key_of_its_own(scene: Scene) -> None:
    scene.dump()
    scene.file("app/hs_err_pid1.log", b"first")
    scene.run()
    scene.file("app/hs_err_pid1.log", b"second!")
    (key,) = scene.run()
    assert key.startswith(FOLDER)
    assert sorted(contents(scene.store).values(), key=len)[:2] == [b"first", b"second!"]


class WakingStore(MemoryStore):
    """Does something, once, when the first part has arrived, and counts the parts."""

    def __init__(self) -> None:
        super().__init__(limits=SMALL_LIMITS)
        self.at_part: Callable[[], object] | None = None
        self.parts_sent = 0

    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        part = super().send_part(key, upload_id, number, body)
        self.parts_sent += 1
        at_part, self.at_part = self.at_part, None
        if at_part:
            at_part()
        return part


def test_a_companion_that_is_under_way_gives_way_to_a_dump_and_goes_on_afterwards(
    volume: Volume, told: Told
) -> None:
    store = WakingStore()
    scene = Scene(volume, store, told)
    scene.dump()
    recording, second = some_bytes(64 * PART), MAKE.dump(segments=4)
    scene.file("app/rec.jfr", recording)
    scene.loop.look(whole=True)
    scene.clock += 15
    scene.loop.look(whole=True)
    while scene.loop.upload_next(timeout_s=0):
        pass

    def another_dump() -> None:
        volume.dump("other/java_pid1.hprof", second)
        scene.loop.look(whole=True)

    store.at_part, store.parts_sent = another_dump, 0
    scene.loop.upload_companion()
    assert f"{FOLDER}rec.jfr" not in contents(store)
    assert store.parts_sent < 64
    assert not scene.loop.upload_companion()
    assert scene.loop.upload_next(timeout_s=0)
    assert contents(store)["other/java_pid1.hprof"] == second
    assert scene.loop.upload_companion()
    assert contents(store)[f"{FOLDER}rec.jfr"] == recording
    assert scene.loop.companions is not None
    assert scene.loop.companions.counts.failed == 0


def test_limits_of_size_and_number_are_told_once(volume: Volume, store: MemoryStore, told: Told) -> None:
    scene = Scene(volume, store, told, limits=CompanionLimits(1000, 3))
    scene.dump()
    scene.file("app/rec.jfr", some_bytes(1001))
    for number in range(5):
        scene.file(f"app/gc.log.{number}", b"pause %d" % number)
    for _ in range(3):
        scene.run()
    assert len([key for key in contents(store) if "companions" in key]) <= 3
    assert f"{FOLDER}rec.jfr" not in contents(store)
    reasons = [str(each["reason"]) for each in told.of("companion_left_alone")]
    assert sum("SIZE" in reason for reason in reasons) == 1
    assert sum("COUNT" in reason for reason in reasons) == len(reasons) - 1 >= 1


def test_companions_of_another_user_or_directory_are_not_mixed_up(scene: Scene) -> None:
    scene.dump()
    scene.file("other/gc.log", b"pause")
    scene.file("app/gc.log", b"pause")
    os.chown(scene.volume.root / "app/gc.log", 4711, 4711)
    assert scene.run() == ["app/java_pid1.hprof"]


def test_room_is_made_with_stored_companions_that_nobody_writes(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told, keep=Keep.UNTIL_UPLOADED)
    scene.dump()
    scene.file("app/rec.jfr", b"closed")
    scene.file("app/gc.log", b"open")
    scene.run()
    assert scene.loop.companions is not None
    scene.loop.companions._recheck._settle_s = 0
    with (volume.root / "app" / "gc.log").open("ab"):
        scene.clock += 60
        for _ in range(2):
            scene.loop.reclaim()
    assert sorted(path.name for path in (volume.root / "app").iterdir() if path.suffix != ".hprof") == [
        "gc.log"
    ]
    assert [each["path"] for each in told.of("companion_deleted")] == [f"{volume.root}/app/rec.jfr"]
    assert not told.of("dump_deleted")


def test_while_jvms_go_on_dying_no_log_is_sent_and_error_files_are(scene: Scene) -> None:
    """Between two dumps of a wave the uploader has nothing to do, and a log would be under way when the next comes."""
    scene.dump()
    scene.file("app/gc.log", b"pause")
    scene.file("app/hs_err_pid1.log", b"OutOfMemoryError")
    came = scene.run(12)
    for number in range(2, 8):
        scene.file(f"app{number}/java_pid1.hprof", MAKE.dump(segments=number))
        came += scene.run(12)
    assert FOLDER + "hs_err_pid1.log" in came
    assert FOLDER + "gc.log" not in came
    assert FOLDER + "gc.log" in scene.run(16)


def test_a_log_that_was_opened_and_closed_a_hundred_times_before_its_dump_travels(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """Each closing counted as one more file of its directory, and the limit of 50 kept the log out."""
    scene = Scene(volume, store, told)
    for _ in range(100):
        scene.file("app/gc.log", b"pause")
        scene.loop.look_at({"app/gc.log"})
    scene.dump()
    scene.loop.look_at({"app/java_pid1.hprof", "app/gc.log"})
    scene.run()
    scene.run()
    assert told.of("companion_left_alone") == []
    assert contents(store)[f"{FOLDER}gc.log"] == b"pause"


def test_a_stream_of_dumps_does_not_keep_another_users_error_file_for_ever(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told)
    scene.file("shop/hs_err_pid1.log", b"SIGSEGV")
    sent_at: float | None = None
    for number in range(40):
        scene.file(f"flood/{number}.hprof", MAKE.dump(segments=number + 1))
        scene.clock += 5
        scene.loop.look(whole=True)
        if scene.loop.companions_are_overdue() and scene.loop.upload_companion():
            sent_at = scene.clock
            break
        assert scene.loop.upload_next(timeout_s=0)
        scene.file(f"flood/next{number}.hprof", MAKE.dump(segments=number + 50))
        scene.loop.look(whole=True)
        assert not scene.loop.upload_companion()
    assert sent_at is not None
    assert sent_at - 1000 <= 90
    assert any(b"SIGSEGV" in content for content in contents(store).values())


def test_one_users_error_files_do_not_come_before_another_users_log(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """Of each user the small ones come first; a thousand files of a byte must not hold up a log."""
    scene = Scene(volume, store, told)
    scene.dump()
    scene.file("app/gc.log", b"pause" * 100)
    for name in ("app", "app/java_pid1.hprof", "app/gc.log"):
        os.chown(volume.root / name, 10001, 10001)
    for number in range(30):
        scene.file(f"t{number}/hs_err_pid1.log", b"x")
        os.chown(volume.root / f"t{number}/hs_err_pid1.log", 12345, 12345)
    order = [key for key in scene.run() if key.endswith(".log")]
    assert len(order) == 31
    assert order.index(f"{FOLDER}gc.log") <= 1
