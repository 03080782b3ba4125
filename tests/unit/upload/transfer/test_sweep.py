"""What an agent that was killed left open is aborted; what another may be at work on, never."""

from __future__ import annotations

import threading
import zlib

import pytest

from dumpagent.dumps.keys import trial_key
from dumpagent.dumps.model import Identity
from dumpagent.dumps.receipt import Unfinished
from dumpagent.errors import Refused
from dumpagent.settings import Place
from dumpagent.store.protocol import Body, OpenUpload, StoredObject
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import UploadLoop
from dumpagent.upload.transfer.sweep import QUIET_S, Sweep
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.judge import CompletenessJudge
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, AgentFor, Told, Volume, contents, some_bytes

LARGE = 5 * PART
KEY = "shop/java_pid1.hprof"


class Scene:
    """One node's sweep over a store, with a clock that a test sets."""

    def __init__(self, volume: Volume, store: MemoryStore, told: Told, *, prefix: str = "") -> None:
        self.now = 0.0
        self.present: list[Identity] = []
        self.ledger = Ledger(str(volume.root / "sweeping"), store=store.name)
        self.sweep = Sweep(store, self.ledger, told, prefix=prefix, node="node-a", monotonic=lambda: self.now)
        self.sweep.expect()

    def look(self, *, after_s: float = 0, settled: bool = True) -> int:
        self.now += after_s
        return self.sweep.sweep(present=self.present, settled=settled)


@pytest.fixture
def scene(volume: Volume, store: MemoryStore, told: Told) -> Scene:
    return Scene(volume, store, told)


def dump_of(store: MemoryStore, node: str, key: str = KEY) -> None:
    store.put(key, Body(b"a dump", zlib.crc32(b"a dump")), {"node": node})


def ids(store: MemoryStore) -> list[str]:
    return [upload.upload_id for upload in store.open_uploads("")]


def test_what_a_kill_left_open_under_our_key_is_aborted_when_it_has_been_quiet_for_long(
    store: MemoryStore, scene: Scene, told: Told
) -> None:
    dump_of(store, "node-a")
    store.begin(KEY, {})
    assert scene.look() == 0
    assert scene.look(after_s=QUIET_S - 1) == 0
    assert scene.look(after_s=1) == 1
    assert ids(store) == []
    assert told.names() == ["leftover_aborted"]


def test_an_upload_that_still_gets_parts_is_somebodys_work(store: MemoryStore, scene: Scene) -> None:
    dump_of(store, "node-a")
    upload_id = store.begin(KEY, {})
    for number in range(1, 5):
        assert scene.look(after_s=QUIET_S) == 0
        store.send_part(KEY, upload_id, number, Body(b"part", zlib.crc32(b"part")))
    assert ids(store) == [upload_id]


def test_uploads_under_a_key_that_another_node_has_are_left_alone(store: MemoryStore, scene: Scene) -> None:
    dump_of(store, "node-b")
    store.begin(KEY, {})
    scene.look()
    assert scene.look(after_s=10 * QUIET_S) == 0
    assert len(ids(store)) == 1


def test_uploads_under_a_key_that_nobody_has_are_left_alone(store: MemoryStore, scene: Scene) -> None:
    """It may be that of a node that was switched off for the weekend, with its dump on the disk."""
    store.begin(KEY, {})
    scene.look()
    assert scene.look(after_s=10 * QUIET_S) == 0
    assert len(ids(store)) == 1


def test_an_upload_that_we_have_noted_is_left_to_whoever_goes_on_with_it(
    store: MemoryStore, scene: Scene
) -> None:
    dump_of(store, "node-a")
    upload_id = store.begin(KEY, {})
    scene.present = [Identity(1, 2, 3)]
    scene.ledger.note_unfinished(Unfinished(Identity(1, 2, 3), store.name, KEY, upload_id, PART, 4))
    scene.look()
    assert scene.look(after_s=QUIET_S) == 0
    assert ids(store) == [upload_id]


def test_an_upload_whose_dump_is_gone_for_long_is_given_up(
    store: MemoryStore, scene: Scene, told: Told
) -> None:
    """Somebody has deleted the dump; a volume that is away for minutes brings it back."""
    dump = Identity(1, 2, 3)
    upload_id = store.begin(KEY, {})
    scene.ledger.note_unfinished(Unfinished(dump, store.name, KEY, upload_id, PART, 4))
    scene.look()
    scene.present = [dump]
    assert scene.look(after_s=QUIET_S) == 0
    scene.present = []
    assert scene.look() == 0
    assert scene.look(after_s=QUIET_S - 1) == 0
    assert ids(store) == [upload_id]
    assert scene.look(after_s=1) == 1
    assert ids(store) == []
    assert scene.ledger.all_unfinished() == []
    assert told.names() == ["leftover_aborted"]


def test_what_the_agent_tried_the_store_out_with_is_aborted_after_a_kill(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    scene = Scene(volume, store, told, prefix="/cluster-1/")
    store.begin(trial_key("/cluster-1/"), {})
    store.begin(trial_key("cluster-2"), {})
    scene.look()
    assert scene.look(after_s=QUIET_S) == 1
    assert [upload.key for upload in store.open_uploads("")] == ["cluster-2/.dumpagent/trial"]


class _Marked(MemoryStore):
    """Every object is a mark by which an upload keeps its key."""

    def look(self, key: str) -> StoredObject | None:
        found = super().look(key)
        return found and StoredObject(key, 0, found.etag, 0, found.metadata, reserved=True)


def test_our_mark_goes_with_its_upload_but_not_while_a_dump_of_ours_waits(volume: Volume, told: Told) -> None:
    store = _Marked()
    scene = Scene(volume, store, told)
    dump_of(store, "node-a")
    dump_of(store, "node-b", "theirs")
    store.begin(KEY, {})
    store.begin("theirs", {})
    scene.look(settled=False)
    assert scene.look(after_s=QUIET_S, settled=False) == 0
    scene.sweep.expect()
    scene.look()
    assert scene.look(after_s=QUIET_S) == 1
    assert [upload.key for upload in store.open_uploads("")] == ["theirs"]
    assert set(contents(store)) == {"theirs"}


def test_credentials_that_may_not_list_are_not_asked_again_and_again(volume: Volume, told: Told) -> None:
    class Blind(MemoryStore):
        asked = 0

        def open_uploads(self, prefix: str) -> list[OpenUpload]:
            self.asked += 1
            raise Refused(f"listing uploads of {prefix}: 403 AccessDenied")

    store = Blind()
    scene = Scene(volume, store, told)
    for _ in range(3):
        assert scene.look(after_s=QUIET_S) == 0
    assert store.asked == 1


@pytest.mark.parametrize("call", ["open_uploads", "look", "parts", "abort"])
def test_a_store_that_refuses_any_of_its_questions_does_not_end_the_agent(
    volume: Volume, told: Told, call: str
) -> None:
    class Refusing(MemoryStore):
        def __getattribute__(self, name: str) -> object:
            if name == call and armed:
                raise Refused(f"{call}: 400 ExpiredToken")
            return super().__getattribute__(name)

    armed = False
    store = Refusing()
    scene = Scene(volume, store, told)
    dump_of(store, "node-a")
    store.begin(KEY, {})
    scene.look()
    scene.ledger.note_unfinished(Unfinished(Identity(1, 2, 3), store.name, "gone", "upload-9", PART, 4))
    scene.look()
    armed = True
    scene.look(after_s=QUIET_S)


def test_the_upload_of_another_node_under_the_same_key_survives_the_end_of_ours(
    volume: Volume, store: MemoryStore, agent_on: AgentFor
) -> None:
    """Two dumps of one name at the same moment: the slower agent learns by itself that the key is taken."""
    job = volume.job(volume.dump(KEY, some_bytes(LARGE)))
    theirs = store.begin(KEY, {"node": "node-b"})
    store.send_part(KEY, theirs, 1, Body(b"part", zlib.crc32(b"part")))
    agent_on(store).upload(job)
    assert ids(store) == [theirs]


def test_the_agent_sweeps_after_its_uploads(volume: Volume, store: MemoryStore, told: Told) -> None:
    now = 0.0
    ledger = Ledger(f"{volume.root}/.dumpagent", store=store.name)
    loop = UploadLoop(
        root=str(volume.root),
        store=store,
        ledger=ledger,
        uploader=Uploader(store, Place(node_name="node-a"), part_bytes=PART),
        judge=CompletenessJudge(quiet_s=0, now=lambda: 0.0, monotonic=lambda: now),
        tell=told,
        stop=threading.Event(),
        retention_days=7,
        sweep=Sweep(store, ledger, told, prefix="", node="node-a", monotonic=lambda: now),
        monotonic=lambda: now,
    )
    store.begin(KEY, {})
    volume.dump(KEY, some_bytes(LARGE))
    loop.run_once()
    assert len(ids(store)) == 1
    now += QUIET_S
    loop.reclaim()
    assert ids(store) == []
