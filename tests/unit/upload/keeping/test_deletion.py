"""Nothing that the store has not just confirmed is deleted; what may go goes in an order that keeps the first of a crash loop."""

from __future__ import annotations

import errno
import os
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from dumpagent.dumps.files import dump_file
from dumpagent.dumps.model import Identity, State, Verdict
from dumpagent.errors import Unreachable
from dumpagent.kernel.volume import Space, space_of
from dumpagent.observe.barrier import Barrier
from dumpagent.settings import Keep, Keeping, Place
from dumpagent.store.protocol import Body, LookRefused, Store, StoredObject
from dumpagent.upload.keeping.deletion import Deletion, restore_hidden, unlink_at
from dumpagent.upload.keeping.recheck import Recheck, Stored
from dumpagent.upload.keeping.retention import in_order_of_deletion
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.transfer.job import Job
from dumpagent.upload.transfer.uploader import Uploader
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, SMALL_LIMITS, Told, Volume, contents, some_bytes

HOUR = 3600


class Disk:
    """A volume of 1000 bytes of which the dumps below `root` take their share."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, path: str) -> Space:
        assert path == str(self.root)
        used = sum(file.stat().st_size for file in self.root.glob("**/*.hprof"))
        return Space(1000, 1000 - used)


class Scene:
    """A volume with dumps that were brought to a store, and the retention over them."""

    def __init__(
        self,
        volume: Volume,
        store: Store,
        told: Told,
        keep: Keep,
        *,
        behind: Store | None = None,
        unlink: Callable[[str, int], None] = unlink_at,
    ) -> None:
        self.volume, self.told = volume, told
        self.ledger = Ledger(f"{volume.root}/.dumpagent", store=store.name)
        self.ledger.load()
        self.uploader = Uploader(behind or store, Place(node_name="n"), part_bytes=PART)
        self.deletion = Deletion(
            Keeping(local_keep=keep),
            root=str(volume.root),
            store=store,
            ledger=self.ledger,
            tell=told,
            space=Disk(volume.root),
            unlink=unlink,
        )
        self.stored: list[Stored] = []

    def upload(self, relpath: str, content: bytes, *, at: float) -> None:
        self.volume.dump(relpath, content)
        os.utime(self.volume.root / relpath, (at, at))
        job = self.volume.job(relpath)
        receipt = replace(self.uploader.upload(job, self.ledger), rechecked=True)
        self.ledger.record(receipt)
        self.stored.append(Stored(job.dump, receipt))

    def reclaim(self) -> list[Identity]:
        return self.deletion.reclaim(self.stored)

    def left(self) -> list[str]:
        return sorted(
            path.relative_to(self.volume.root).as_posix() for path in self.volume.root.glob("**/*.hprof")
        )


def test_while_there_is_room_everything_stays(volume: Volume, store: MemoryStore, told: Told) -> None:
    scene = Scene(volume, store, told, Keep.WHILE_SPACE)
    scene.upload("a.hprof", some_bytes(700), at=1)
    scene.reclaim()
    assert scene.left() == ["a.hprof"]
    assert told.events == []


def test_the_oldest_go_until_there_is_room_enough_and_no_more(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told, Keep.WHILE_SPACE)
    for number in range(9):
        scene.upload(f"{number}.hprof", some_bytes(100), at=1000.0 * number)
    scene.reclaim()
    assert scene.left() == [f"{number}.hprof" for number in range(2, 9)]
    assert len(contents(store)) == 9
    assert [str(deleted["key"]) for deleted in told.of("dump_deleted")] == ["0.hprof", "1.hprof"]


@pytest.mark.parametrize(("keep", "left"), [(Keep.ALWAYS, ["a.hprof"]), (Keep.UNTIL_UPLOADED, [])])
def test_the_two_plain_policies(
    volume: Volume, store: MemoryStore, told: Told, keep: Keep, left: list[str]
) -> None:
    scene = Scene(volume, store, told, keep)
    scene.upload("a.hprof", some_bytes(990 if keep is Keep.ALWAYS else 10), at=1)
    scene.reclaim()
    assert scene.left() == left


def test_repeats_of_a_crash_loop_go_before_its_first_dump(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told, Keep.WHILE_SPACE)
    for number, at in enumerate([0, 600, 1200, 50 * HOUR]):
        relpath = f"java_pid1.{number}.hprof"
        scene.upload(relpath, some_bytes(10), at=float(at + 1))
        last = scene.stored[-1]
        scene.stored[-1] = Stored(last.dump, replace(last.receipt, path="java_pid1.hprof"))
    assert [each.dump.relpath.split(".")[1] for each in in_order_of_deletion(scene.stored)] == [
        "1",
        "2",
        "0",
        "3",
    ]


def test_the_first_and_the_newest_dump_of_a_crash_loop_stay_longest(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """When nothing else is left they go too, the newest before the first: room for the next dump comes first."""
    scene = Scene(volume, store, told, Keep.WHILE_SPACE)
    for number in range(5):
        scene.upload(f"java_pid1.{number}.hprof", some_bytes(10), at=600.0 * number + 1)
        last = scene.stored[-1]
        scene.stored[-1] = Stored(last.dump, replace(last.receipt, path="java_pid1.hprof"))
    assert [each.dump.relpath.split(".")[1] for each in in_order_of_deletion(scene.stored)] == list("12340")


def test_a_full_disk_of_unconfirmed_dumps_is_an_alarm_and_no_deletion(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    class Blind(MemoryStore):
        def look(self, key: str) -> StoredObject | None:
            raise LookRefused(f"looking at {key}: 403")

    scene = Scene(volume, Blind(limits=SMALL_LIMITS), told, Keep.WHILE_SPACE)
    scene.upload("a.hprof", some_bytes(900), at=1)
    for _ in range(3):
        scene.reclaim()
    assert scene.left() == ["a.hprof"]
    assert len(told.of("volume_full")) == 1
    os.unlink(volume.root / "a.hprof")
    scene.reclaim()
    assert told.names()[-1] == "volume_roomy"


def test_a_dump_whose_object_is_gone_stays_and_is_to_be_uploaded_again(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED)
    scene.upload("a.hprof", some_bytes(10), at=1)
    store.delete("a.hprof")
    assert scene.reclaim() == [scene.stored[0].dump.identity]
    assert scene.left() == ["a.hprof"]
    assert scene.ledger.receipt(scene.stored[0].dump.identity) is None
    assert told.names() == ["object_missing"]


def test_a_dump_whose_object_was_replaced_stays(volume: Volume, store: MemoryStore, told: Told) -> None:
    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED)
    scene.upload("a.hprof", some_bytes(10), at=1)
    store.delete("a.hprof")
    other = some_bytes(10)
    store.put("a.hprof", Body(other, zlib.crc32(other)), {})
    scene.reclaim()
    assert scene.left() == ["a.hprof"]


def test_a_store_that_cannot_be_asked_deletes_nothing(volume: Volume, store: MemoryStore, told: Told) -> None:
    class Down(MemoryStore):
        def look(self, key: str) -> StoredObject | None:
            raise Unreachable("no answer")

    scene = Scene(volume, Down(limits=SMALL_LIMITS), told, Keep.UNTIL_UPLOADED, behind=store)
    scene.upload("a.hprof", some_bytes(10), at=1)
    with pytest.raises(Unreachable):
        scene.reclaim()
    assert scene.left() == ["a.hprof"]


def test_another_file_that_took_the_name_is_not_deleted(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """It keeps its name, and is uploaded like any other."""
    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED)
    scene.upload("a.hprof", some_bytes(10), at=1)
    os.unlink(volume.root / "a.hprof")
    volume.dump("a.hprof", b"another dump")
    scene.reclaim()
    assert scene.left() == ["a.hprof"]
    assert (volume.root / "a.hprof").read_bytes() == b"another dump"
    assert told.of("dump_deleted") == []


def test_a_file_that_cannot_be_deleted_stays_in_sight_and_goes_later(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """Hidden in the state directory, a file that had taken the dump's name was never uploaded."""
    errors = [errno.EIO, errno.EIO]

    def unlink(name: str, directory: int) -> None:
        if errors:
            raise OSError(errors.pop(), "Input/output error", name)
        unlink_at(name, directory)

    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED, unlink=unlink)
    scene.upload("a.hprof", some_bytes(10), at=1)
    for _ in range(2):
        scene.reclaim()
        (left,) = scene.left()
        dump = volume.job(left).dump
        assert scene.ledger.receipt(dump.identity), "the next scan knows it for a stored dump"
        scene.stored = [Stored(dump, scene.stored[0].receipt)]
    scene.reclaim()
    assert scene.left() == []
    (failed,) = told.of("delete_failed")
    assert "DAC_OVERRIDE" not in str(failed["hint"])
    assert told.names()[-2:] == ["delete_recovered", "dump_deleted"]


def test_a_fault_of_ours_while_deleting_one_dump_does_not_stop_the_others(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    def unlink(name: str, directory: int) -> None:
        if b"first" in (volume.root / name).read_bytes():
            raise ValueError("nobody foresaw this")
        unlink_at(name, directory)

    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED, unlink=unlink)
    scene.upload("a.hprof", b"first", at=1)
    scene.upload("b.hprof", b"second", at=2)
    scene.reclaim()
    assert len(scene.left()) == 1
    (fault,) = told.of("agent_faulty")
    assert fault["path"] == scene.stored[0].dump.path
    assert "nobody foresaw this" in str(fault["trace"])


def test_what_the_first_version_hid_is_brought_back_and_overwrites_nothing(
    volume: Volume, told: Told
) -> None:
    hidden = volume.root / ".dumpagent" / "deleting"
    hidden.mkdir(parents=True)
    (hidden / "1-2-3").write_bytes(b"a new dump")
    volume.dump("recovered-1-2-3.hprof", b"an earlier one")
    restore_hidden(str(volume.root), f"{volume.root}/.dumpagent", barrier=Barrier(told))
    assert sorted(path.read_bytes() for path in volume.root.glob("*.hprof")) == [
        b"a new dump",
        b"an earlier one",
    ]
    assert list(hidden.iterdir()) == []


def test_what_only_root_may_fill_is_no_room() -> None:
    """A quarter of the disk is reserved: of 1000 blocks 600 are full, and a writer gets 150 of the other 400."""
    reserving = os.statvfs_result((4096, 4096, 1000, 400, 150, 0, 0, 0, 0, 255))
    space = space_of("/volume", statvfs=lambda path: reserving)
    assert space == Space(total_bytes=750 * 4096, free_bytes=150 * 4096)
    assert space.free_percent == 20.0


def test_room_is_counted_as_df_does(tmp_path: Path) -> None:
    """The kernel's figures for this very disk, by df(1); others write to it meanwhile."""
    said = subprocess.run(
        ["df", "--block-size=1", "--output=used,avail", tmp_path], capture_output=True, text=True, check=True
    )
    used_bytes, free_bytes = map(int, said.stdout.splitlines()[1].split())
    space = space_of(str(tmp_path))
    assert space.total_bytes == pytest.approx(used_bytes + free_bytes, rel=0.01)
    assert space.free_bytes == pytest.approx(free_bytes, rel=0.05, abs=1 << 30)


def test_what_another_agent_overwrote_right_after_our_look_is_uploaded_again(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """Swift tells two agents at once that theirs is stored; the second look, later, tells whose it was."""
    now = 0.0
    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED)
    scene.upload("a.hprof", some_bytes(10), at=1)
    fresh = [
        Stored(each.dump, replace(each.receipt, rechecked=False, uploaded_at=0)) for each in scene.stored
    ]
    recheck = Recheck(store, scene.ledger, told, settle_s=30, now=lambda: 0.0, monotonic=lambda: now)
    kept, missing = recheck.look(fresh)
    assert (kept, missing) == (fresh, [])
    assert scene.deletion.reclaim(kept) == []
    assert scene.left() == ["a.hprof"], "nothing goes before the second look"
    store.delete("a.hprof")
    theirs = some_bytes(10)
    store.put("a.hprof", Body(theirs, zlib.crc32(theirs)), {})
    now = 30.0
    kept, missing = recheck.look(fresh)
    assert kept == []
    assert missing == [fresh[0].dump.identity]
    assert told.names() == ["object_missing"]
    scene.upload("a.hprof", (volume.root / "a.hprof").read_bytes(), at=1)
    assert len(contents(store)) == 2


def test_a_second_look_that_finds_the_dump_is_the_last_one(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told, Keep.ALWAYS)
    scene.upload("a.hprof", some_bytes(10), at=1)
    fresh = [Stored(each.dump, replace(each.receipt, rechecked=False)) for each in scene.stored]
    (kept,), missing = Recheck(store, scene.ledger, told, settle_s=0).look(fresh)
    assert kept.receipt.rechecked
    assert missing == []
    again = Ledger(f"{volume.root}/.dumpagent", store=store.name)
    again.load()
    assert [receipt.rechecked for receipt in again.receipts()] == [True]


def _killed_jvm(scene: Scene, *, also_store_the_part: bool) -> None:
    """A JDK 22+ JVM was killed in mid-dump, and nothing was claimed."""
    part = "java_pid1.hprof.p0"
    scene.upload("java_pid1.hprof", some_bytes(20), at=1)
    scene.volume.dump(part, some_bytes(30))
    if also_store_the_part:
        job = Job(
            dump_file(str(scene.volume.root), part, os.lstat(scene.volume.root / part))
            or scene.stored[0].dump,
            Verdict(State.TRUNCATED, "", due=True),
        )
        scene.stored.append(
            Stored(job.dump, replace(scene.uploader.upload(job, scene.ledger), rechecked=True))
        )


def test_stub_and_parts_of_a_killed_jvm_are_cleared_together_so_that_the_next_dump_finds_both_names_free(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told, Keep.WHILE_SPACE)
    _killed_jvm(scene, also_store_the_part=True)
    scene.upload("other.hprof", some_bytes(20), at=1)
    scene.reclaim()
    assert sorted(path.name for path in volume.root.iterdir() if path.is_file()) == ["other.hprof"]
    assert len(contents(store)) == 3


def test_a_stub_whose_part_is_not_safe_yet_stays_with_it(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED)
    _killed_jvm(scene, also_store_the_part=False)
    scene.reclaim()
    assert sorted(path.name for path in volume.root.iterdir() if path.is_file()) == [
        "java_pid1.hprof",
        "java_pid1.hprof.p0",
    ]


def test_a_name_that_a_tenant_made_first_does_not_keep_a_stored_dump_from_being_deleted(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """The name that a dump gets before it is deleted can be foreseen: inode, size and time are public."""
    scene = Scene(volume, store, told, Keep.UNTIL_UPLOADED)
    scene.upload("a.hprof", some_bytes(10), at=1)
    squatted = f"deleting-{scene.stored[0].dump.identity}.hprof"
    volume.dump(squatted, b"a tenant's")
    scene.reclaim()
    assert scene.left() == [squatted]
    assert (volume.root / squatted).read_bytes() == b"a tenant's"
