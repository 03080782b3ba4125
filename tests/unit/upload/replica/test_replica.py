"""The replica gets every dump after the first destination, delays nothing there, and guards what it lacks from deletion."""

from __future__ import annotations

import shutil
import threading

import pytest

from dumpagent.dumps.receipt import Receipt
from dumpagent.errors import Refused, Unreachable
from dumpagent.kernel.volume import Space
from dumpagent.observe.barrier import Barrier
from dumpagent.settings import Keep, Keeping, Place
from dumpagent.store.protocol import Body, Store
from dumpagent.upload.entry import Counts
from dumpagent.upload.keeping.deletion import Deletion
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import Pass, UploadLoop
from dumpagent.upload.replica.replica import ReplicaParts, ReplicaUploads
from dumpagent.upload.transfer.uploader import Uploader, no_index
from dumpagent.upload.volume.judge import CompletenessJudge
from dumpagent.upload.worker import no_progress
from tests.harness.faulty_store import FaultyStore
from tests.harness.hprof import Maker
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, SMALL_LIMITS, Told, Volume, contents

MAKE = Maker()
_SETTLED_S = 31.0


class Away(MemoryStore):
    """A store that is away while `error` is set."""

    def __init__(self) -> None:
        super().__init__(limits=SMALL_LIMITS)
        self.name = "the replica"
        self.error: Exception | None = None

    def look(self, key: str):  # type: ignore[no-untyped-def]
        if self.error:
            raise self.error
        return super().look(key)

    def check(self) -> None:
        if self.error:
            raise self.error


class Scene:
    """An agent with two destinations, on a volume whose clock the test sets."""

    def __init__(self, volume: Volume, told: Told, first: Store | None = None) -> None:
        self.volume, self.told, self.clock = volume, told, 1000.0
        self.first: Store = first or MemoryStore(limits=SMALL_LIMITS)
        self.second = Away()
        self.begin()

    def now(self) -> float:
        return self.clock

    def begin(self, *, keep: Keep = Keep.UNTIL_UPLOADED) -> None:
        """Start the agent, as a new process."""
        state, root = f"{self.volume.root}/.dumpagent", str(self.volume.root)
        self.ledger = Ledger(state, store=self.first.name)
        ledger = Ledger(f"{state}/replica", store=self.second.name)
        for each in (self.ledger, ledger):
            each.load()

        def uploader(store: Store, stop: threading.Event) -> Uploader:
            return Uploader(store, Place(node_name="n"), part_bytes=PART, stop=stop)

        self.loop = UploadLoop(
            root=root,
            store=self.first,
            ledger=self.ledger,
            uploader=uploader(self.first, threading.Event()),
            judge=CompletenessJudge(quiet_s=0, monotonic=self.now),
            tell=self.told,
            stop=threading.Event(),
            retention_days=7,
            deletion=Deletion(
                Keeping(local_keep=keep), root=root, store=self.first, ledger=self.ledger, tell=self.told,
                barrier=Barrier(self.told), space=lambda _root: Space(100, 100),
            ),
            replica=ReplicaParts(
                store=self.second,
                ledger=ledger,
                uploader=lambda stop, _index: uploader(self.second, stop),
                judge=CompletenessJudge(quiet_s=0, monotonic=self.now),
                index=no_index,
                sweep=None,
                progress=no_progress,
            ),
            monotonic=self.now,
        )  # fmt: skip

    @property
    def replica(self) -> ReplicaUploads:
        assert self.loop.replica
        return self.loop.replica

    def dump(self, relpath: str) -> bytes:
        content = MAKE.dump(segments=4, segment_bytes=1500)
        self.volume.dump(relpath, content)
        return content

    def scan(self) -> None:
        self.loop.look(whole=True)

    def serve_first(self) -> None:
        while isinstance(self.loop.upload_next(timeout_s=0), Receipt):
            pass

    def serve_replica(self) -> None:
        while isinstance(self.replica.upload_next(timeout_s=0), Receipt):
            pass

    def settle(self) -> None:
        """Let the time go by after which what was stored is confirmed once more."""
        self.loop.reclaim()
        self.replica.reclaim()
        self.clock += _SETTLED_S
        self.loop.reclaim()
        self.replica.reclaim()

    def left(self) -> int:
        return len(list(self.volume.root.rglob("*.hprof")))


@pytest.fixture
def scene(volume: Volume, told: Told) -> Scene:
    return Scene(volume, told)


def sums_up(counts: Counts) -> bool:
    return counts.seen == counts.uploaded + counts.pending + counts.failed


def test_the_first_destinations_dumps_go_before_the_replicas(scene: Scene) -> None:
    content = scene.dump("a.hprof")
    scene.scan()
    assert scene.replica.counts.pending == 1, "it counts from when it is finished"
    assert scene.replica.upload_next(timeout_s=0) is None
    assert contents(scene.second) == {}
    scene.serve_first()
    scene.serve_replica()
    assert contents(scene.first) == contents(scene.second) == {"a.hprof": content}
    assert scene.told.names().count("dump_uploaded") == scene.told.names().count("replica_uploaded") == 1


def test_a_dump_of_the_first_destination_cuts_off_what_goes_to_the_replica(scene: Scene) -> None:
    scene.dump("a.hprof")
    scene.scan()
    scene.serve_first()
    sent: list[int] = []
    real = scene.second.send_part

    def while_another_comes(key: str, upload_id: str, number: int, body: Body):  # type: ignore[no-untyped-def]
        sent.append(number)
        if len(sent) == 1:
            scene.dump("b.hprof")
            scene.scan()
        scene.clock += 1
        return real(key, upload_id, number, body)

    scene.second.send_part = while_another_comes  # type: ignore[method-assign]
    assert scene.replica.upload_next(timeout_s=0) is None
    assert contents(scene.second) == {}
    scene.serve_first()
    scene.serve_replica()
    assert sorted(contents(scene.second)) == ["a.hprof", "b.hprof"]


@pytest.mark.parametrize("error", [Unreachable("away"), Refused("no such bucket")], ids=["away", "refuses"])
def test_a_replica_that_is_away_for_a_day_delays_nothing_and_loses_nothing(
    scene: Scene, error: Exception
) -> None:
    scene.second.error = error
    for hour in range(24):
        scene.dump(f"{hour}.hprof")
        scene.scan()
        scene.serve_first()
        scene.serve_replica()
        scene.loop.free_space()
        scene.clock += 3600
        assert len(contents(scene.first)) == scene.left() == hour + 1
        assert sums_up(scene.replica.counts)
    assert scene.replica.counts.pending == 24
    assert scene.loop.counts.pending == 0
    assert "store_failed" not in scene.told.names()
    assert scene.told.names().count("replica_failed") < 200
    scene.second.error = None
    scene.serve_replica()
    assert contents(scene.second) == contents(scene.first)
    assert scene.replica.counts.uploaded == 24


def test_a_dump_leaves_the_volume_once_both_have_confirmed_it_and_show_it(scene: Scene) -> None:
    scene.dump("a.hprof")
    scene.scan()
    scene.serve_first()
    scene.settle()
    scene.loop.free_space()
    assert scene.left() == 1
    scene.serve_replica()
    scene.loop.free_space()
    assert scene.left() == 1, "not confirmed twice yet"
    scene.settle()
    scene.second.error = Unreachable("away")
    scene.loop.free_space()
    assert scene.left() == 1, "it must show the dump at this moment"
    assert "store_failed" not in scene.told.names()
    scene.second.error = None
    scene.clock += 60
    scene.loop.free_space()
    assert scene.left() == 0
    scene.scan()
    assert "replica_lost" not in scene.told.names()
    assert sums_up(scene.replica.counts)


def test_an_object_that_the_replica_lost_keeps_the_dump_and_goes_there_again(scene: Scene) -> None:
    scene.dump("a.hprof")
    scene.scan()
    scene.serve_first()
    scene.serve_replica()
    scene.settle()
    scene.second.delete("a.hprof")
    scene.loop.free_space()
    assert scene.left() == 1
    assert scene.told.names().count("replica_object_missing") == 1
    scene.serve_replica()
    assert list(contents(scene.second)) == ["a.hprof"]


def test_a_lost_state_neither_doubles_nor_loses_anything_at_either_store(scene: Scene) -> None:
    scene.dump("a.hprof")
    for _ in range(3):
        scene.scan()
        scene.serve_first()
        scene.serve_replica()
        shutil.rmtree(f"{scene.volume.root}/.dumpagent")
        scene.begin()
    assert list(contents(scene.first)) == list(contents(scene.second)) == ["a.hprof"]


def test_what_the_first_destination_has_already_goes_to_a_new_replica(scene: Scene) -> None:
    """The replica is set up later, or its receipts are lost: the dumps on the volume are judged anew for it."""
    scene.dump("a.hprof")
    scene.scan()
    scene.serve_first()
    scene.begin()
    scene.scan()
    assert scene.loop.counts.uploaded == 1
    scene.serve_replica()
    assert list(contents(scene.second)) == ["a.hprof"]
    assert scene.told.of("replica_uploaded")[0]["verdict"] == "complete"


def test_a_dump_that_is_removed_before_the_replica_has_it_is_told_and_counted(scene: Scene) -> None:
    scene.dump("a.hprof")
    scene.scan()
    scene.serve_first()
    (scene.volume.root / "a.hprof").unlink()
    scene.scan()
    assert scene.told.names().count("replica_lost") == 1
    counts = scene.replica.counts
    assert (counts.seen, counts.failed, counts.pending) == (1, 1, 0)
    assert scene.loop.counts.failed == 0


def test_a_dump_that_is_written_over_after_the_first_has_it_is_not_sent_half(scene: Scene) -> None:
    scene.dump("a.hprof")
    scene.scan()
    scene.serve_first()
    new = MAKE.dump(segments=9, segment_bytes=1500)
    scene.volume.dump("a.hprof", new)
    for _ in range(5):
        assert scene.replica.upload_next(timeout_s=0) is None
    assert contents(scene.second) == {}
    scene.clock += 2
    scene.scan()
    scene.serve_first()
    scene.clock += 2
    scene.serve_replica()
    assert new in contents(scene.second).values()
    assert sums_up(scene.replica.counts)


def test_the_replica_is_served_while_the_first_store_is_away(volume: Volume, told: Told) -> None:
    """The one copy that can be had is had at once."""
    behind = MemoryStore(limits=SMALL_LIMITS)
    scene = Scene(volume, told, FaultyStore(behind, Unreachable("away"), at=0))
    content = scene.dump("a.hprof")
    scene.scan()
    assert isinstance(scene.loop.upload_next(timeout_s=0), Unreachable)
    scene.serve_replica()
    assert contents(scene.second) == {"a.hprof": content}
    scene.clock += 60
    scene.serve_first()
    assert contents(behind) == {"a.hprof": content}


def test_one_pass_uploads_to_both_and_says_so_of_each(scene: Scene) -> None:
    scene.dump("a.hprof")
    scene.dump("b.hprof")
    assert scene.loop.run_once() == Pass(uploaded=2, replica=Pass(uploaded=2))
    scene.begin()
    scene.dump("c.hprof")
    scene.second.error = Unreachable("away")
    assert scene.loop.run_once() == Pass(uploaded=1, replica=Pass(failed=1))


def test_a_dry_run_says_what_would_go_where(scene: Scene) -> None:
    scene.dump("a.hprof")
    scene.loop.run_once(dry_run=True)
    assert contents(scene.first) == contents(scene.second) == {}
    assert scene.told.names().count("dump_would_upload") == 1
    assert scene.told.names().count("replica_would_upload") == 1
