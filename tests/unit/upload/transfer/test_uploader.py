"""A dump comes into the store once, whole, under a key of its own, whatever is cut off or stands in the way."""

from __future__ import annotations

import gzip
import os
import shutil
import threading
import zlib
from pathlib import Path

import pytest

from dumpagent.dumps.receipt import Receipt, Unfinished
from dumpagent.dumps.source import SourceChanged, Stopped
from dumpagent.errors import Refused, Unreachable
from dumpagent.part_sizes import PART_BYTES, Limits, large_part_size, part_size
from dumpagent.settings import Place
from dumpagent.store.protocol import Body, LookRefused, OpenUpload, Part, StoredObject
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.transfer.standing import NotAsSent
from dumpagent.upload.transfer.uploader import Uploader
from tests.harness.faulty_store import FaultyStore
from tests.harness.hprof import Maker
from tests.harness.stores.memory import MemoryStore
from tests.harness.sweeping import sweep_leftovers
from tests.unit.upload.conftest import PART, SMALL_LIMITS, Agent, AgentFor, Volume, contents, some_bytes

SMALL, LARGE = 100, 5 * PART + 17


@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, LARGE])
def test_the_bucket_holds_exactly_the_dumps_bytes(
    volume: Volume, store: MemoryStore, agent_on: AgentFor, size: int
) -> None:
    content = some_bytes(size)
    receipt = agent_on(store).upload(volume.job(volume.dump("shop/java_pid1.hprof", content)))
    assert contents(store) == {"shop/java_pid1.hprof": content}
    assert receipt.sent_bytes == size
    assert receipt.verified
    assert receipt.crc32 == zlib.crc32(content)
    assert store.open_uploads("") == []


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_the_same_dump_is_not_stored_twice_when_the_state_is_lost(
    volume: Volume, store: MemoryStore, agent_on: AgentFor, size: int
) -> None:
    job = volume.job(volume.dump("java_pid1.hprof", some_bytes(size)))
    agent_on(store).upload(job)
    before = contents(store)
    again = agent_on(store, state="lost", node="another-node").upload(job)
    assert again.sent_bytes == 0
    assert contents(store) == before


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_another_dump_of_that_name_gets_its_own_key(
    volume: Volume, store: MemoryStore, agent_on: AgentFor, size: int
) -> None:
    """Time, then node, then bytes; and nobody's object is touched."""
    wanted = {}
    for key in (
        "java_pid1.hprof",
        "java_pid1.20260101T000000Z.hprof",
        "java_pid1.20260101T000000Z.node-a.hprof",
    ):
        content = some_bytes(size)
        agent_on(store).upload(volume.job(volume.dump("java_pid1.hprof", content)))
        wanted[key] = content
        assert contents(store) == wanted
    last = some_bytes(size)
    agent_on(store).upload(volume.job(volume.dump("java_pid1.hprof", last)))
    assert contents(store) == {
        **wanted,
        f"java_pid1.20260101T000000Z.node-a.{zlib.crc32(last):08x}.hprof": last,
    }


def test_an_object_of_somebody_else_is_never_overwritten(
    volume: Volume, store: MemoryStore, agent_on: AgentFor
) -> None:
    theirs = b"a file of another tool with our name"
    store.put("java_pid1.hprof", Body(theirs, zlib.crc32(theirs)), {})
    content = some_bytes(len(theirs))
    agent_on(store).upload(volume.job(volume.dump("java_pid1.hprof", content)))
    assert contents(store) == {"java_pid1.hprof": theirs, "java_pid1.20260101T000000Z.hprof": content}


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("state", ["kept", "lost"])
def test_a_cut_at_any_request_loses_and_doubles_nothing(
    volume: Volume, store: MemoryStore, agent_on: AgentFor, size: int, after: bool, state: str
) -> None:
    """kill -9 or a lost answer at each request in turn; then the agent starts again, with its state or without."""
    content = some_bytes(size)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    calls = FaultyStore(MemoryStore(limits=store.limits), Unreachable("never"))
    agent_on(calls, state="counting").upload(job)
    for at in range(len(calls.calls)):
        fresh = MemoryStore(limits=store.limits)
        broken = FaultyStore(fresh, Unreachable("the cut"), at=at, after=after)
        state_dir = f"state-{at}"
        try:
            agent_on(broken, state=state_dir).upload(job)
        except Unreachable:
            pass  # some requests may fail without harm
        if state == "lost":
            shutil.rmtree(volume.root / state_dir, ignore_errors=True)
        agent_on(fresh, state=state_dir).upload(job)
        assert contents(fresh) == {"java_pid1.hprof": content}, (
            f"cut {'after' if after else 'before'} {calls.calls[at]}"
        )
        sweep_leftovers(fresh, node="node-a")
        assert fresh.open_uploads("") == [], f"cut {'after' if after else 'before'} {calls.calls[at]}"


def test_an_upload_goes_on_from_the_parts_that_the_store_holds(
    volume: Volume, store: MemoryStore, agent_on: AgentFor
) -> None:
    content = some_bytes(40 * PART)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    broken = FaultyStore(store, Unreachable("the cut"), at=10)
    with pytest.raises(Unreachable):
        agent_on(broken).upload(job)
    held = sum(
        part.size_bytes
        for upload in store.open_uploads("")
        for part in store.parts(upload.key, upload.upload_id)
    )
    assert 20 * PART <= held < 40 * PART
    receipt = agent_on(store).upload(job)
    assert receipt.resumed
    assert receipt.sent_bytes == len(content) - held
    assert contents(store) == {"java_pid1.hprof": content}


def test_an_upload_goes_on_even_without_the_state(
    volume: Volume, store: MemoryStore, agent_on: AgentFor
) -> None:
    content = some_bytes(40 * PART)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    with pytest.raises(Unreachable):
        agent_on(FaultyStore(store, Unreachable("the cut"), at=10)).upload(job)
    receipt = agent_on(store, state="lost").upload(job)
    assert receipt.resumed
    assert receipt.sent_bytes < len(content) - 10 * PART
    assert contents(store) == {"java_pid1.hprof": content}


class _Parts(MemoryStore):
    """Keeps the sizes of the parts it was sent; `refuses` them all while it says so."""

    def __init__(self) -> None:
        super().__init__(limits=SMALL_LIMITS)
        self.sizes: list[int] = []
        self.refuses = False

    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        if self.refuses:
            raise Unreachable("a line that breaks in the middle of each part")
        self.sizes.append(body.size_bytes)
        return super().send_part(key, upload_id, number, body)


def test_a_large_dump_goes_in_fewer_parts(volume: Volume, agent_on: AgentFor) -> None:
    store = _Parts()
    agent_on(store).upload(volume.job(volume.dump("java_pid1.hprof", some_bytes(33 * PART))))
    assert sorted(store.sizes) == [PART] + [4 * PART] * 8


def test_an_upload_that_broke_before_its_first_part_arrived_goes_on_in_smaller_ones(
    volume: Volume, agent_on: AgentFor
) -> None:
    store, content = _Parts(), some_bytes(40 * PART)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    store.refuses = True
    with pytest.raises(Unreachable):
        agent_on(store).upload(job)
    store.refuses = False
    agent_on(store).upload(job)
    assert store.sizes == [PART] * 40
    assert contents(store) == {"java_pid1.hprof": content}
    assert store.open_uploads("") == []


@pytest.mark.parametrize("state", ["kept", "lost"])
def test_an_upload_in_smaller_parts_goes_on_in_those(state: str, volume: Volume, agent_on: AgentFor) -> None:
    """An agent of an earlier version began it."""
    store, content = _Parts(), some_bytes(40 * PART)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    identity = job.dump.identity
    labels = {"crc32": f"{zlib.crc32(content):08x}", "original-size": str(len(content))}
    upload_id = store.begin("java_pid1.hprof", labels)
    data = content[:PART]
    part = store.send_part("java_pid1.hprof", upload_id, 1, Body(data, zlib.crc32(data)))
    begun = Unfinished(
        identity, store.name, "java_pid1.hprof", upload_id, PART, zlib.crc32(content), {1: part.etag}
    )
    if state == "kept":
        Ledger(f"{volume.root}/.dumpagent", store=store.name).note_unfinished(begun)
    store.sizes.clear()
    assert agent_on(store).upload(job).resumed
    assert store.sizes == [PART] * 39
    assert contents(store) == {"java_pid1.hprof": content}


def test_an_ending_agent_does_not_wait_for_the_part_that_is_sent(
    volume: Volume, store: MemoryStore, tmp_path: Path
) -> None:
    """A large part on a slow line takes minutes, and the kubelet waits half a one."""
    stop, asked = threading.Event(), threading.Event()

    class Slow(MemoryStore):
        def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
            assert not isinstance(body.data, bytes)
            body.data.read(16)
            stop.set()
            asked.set()
            return super().send_part(key, upload_id, number, body)

    ledger = Ledger(str(tmp_path / "state"), store=store.name)
    slow = Slow(limits=SMALL_LIMITS)
    sender = Agent(Uploader(slow, Place(), part_bytes=PART, stop=stop, workers=1), ledger)
    with pytest.raises(Stopped):
        sender.upload(volume.job(volume.dump("java_pid1.hprof", some_bytes(LARGE))))
    assert asked.is_set()
    (left,) = slow.open_uploads("")
    assert slow.parts(left.key, left.upload_id) == []  # the part was not read to its end


def test_parts_of_another_dump_are_not_taken_over(
    volume: Volume, store: MemoryStore, agent_on: AgentFor
) -> None:
    """Another node began a dump of that name; nothing of it may come into ours."""
    theirs = store.begin("java_pid1.hprof", {})
    data = some_bytes(PART)
    store.send_part("java_pid1.hprof", theirs, 1, Body(data, zlib.crc32(data)))
    content = some_bytes(LARGE)
    agent_on(store).upload(volume.job(volume.dump("java_pid1.hprof", content)))
    assert contents(store) == {"java_pid1.hprof": content}


class _Overtaken(MemoryStore):
    """Somebody else completes another dump under the key just before we do."""

    def __init__(self, limits: Limits, theirs: bytes) -> None:
        super().__init__(limits=limits)
        self.theirs: bytes | None = theirs

    def _overtake(self, key: str) -> None:
        if self.theirs is not None:
            body, self.theirs = Body(self.theirs, zlib.crc32(self.theirs)), None
            super().put(key, body, {"crc32": "00000000", "original-size": "1"})

    def put(self, key: str, body: Body, metadata: object) -> None:
        self._overtake(key)
        super().put(key, body, metadata)  # type: ignore[arg-type]  # passed on as it came

    def complete(
        self, key: str, upload_id: str, parts: list[Part], *, crc32: int, replace: bool = False
    ) -> None:
        self._overtake(key)
        super().complete(key, upload_id, parts, crc32=crc32, replace=replace)


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_two_nodes_at_the_same_moment_both_keep_their_dump(
    volume: Volume, store: MemoryStore, agent_on: AgentFor, size: int
) -> None:
    theirs, content = some_bytes(size), some_bytes(size)
    contested = _Overtaken(store.limits, theirs)
    agent_on(contested).upload(volume.job(volume.dump("java_pid1.hprof", content)))
    assert contents(contested) == {"java_pid1.hprof": theirs, "java_pid1.20260101T000000Z.hprof": content}
    assert contested.open_uploads("") == []


class _Framing(MemoryStore):
    """Answers 200 and stores the framing of the request with the body, as one small server does."""

    framing = True

    def put(self, key: str, body: Body, metadata: object) -> None:
        content = body.in_memory() + (b"\r\n0\r\n" if self.framing else b"")
        super().put(key, Body(content, zlib.crc32(content)), metadata)  # type: ignore[arg-type]


def test_a_store_that_holds_something_else_is_caught_and_the_dump_is_stored_once_it_is_mended(
    volume: Volume, store: MemoryStore, agent_on: AgentFor
) -> None:
    lying = _Framing(limits=store.limits)
    content = some_bytes(SMALL)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    with pytest.raises(NotAsSent, match=r"holds 105 bytes under java_pid1\.hprof, sent were 100"):
        agent_on(lying).upload(job)
    assert agent_on(lying).ledger.receipts() == []
    lying.framing = False
    agent_on(lying).upload(job)
    assert contents(lying) == {"java_pid1.hprof": content}


class _WriteOnly(MemoryStore):
    """Credentials that may write, and neither look, list nor read."""

    def look(self, key: str) -> StoredObject | None:
        raise LookRefused(f"looking at {key}: 403")

    def open_uploads(self, prefix: str) -> list[OpenUpload]:
        raise Refused(f"listing uploads of {prefix}: 403 AccessDenied")


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_write_only_credentials_store_dumps_and_say_that_nothing_was_confirmed(
    volume: Volume, store: MemoryStore, agent_on: AgentFor, size: int
) -> None:
    blind = _WriteOnly(limits=store.limits)
    content = some_bytes(size)
    receipt = agent_on(blind).upload(volume.job(volume.dump("java_pid1.hprof", content)))
    assert contents(blind) == {"java_pid1.hprof": content}
    assert not receipt.verified


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_dump_that_is_written_to_during_its_upload_is_not_stored(
    volume: Volume, store: MemoryStore, agent_on: AgentFor, size: int
) -> None:
    path = volume.root / volume.dump("java_pid1.hprof", some_bytes(size))
    job = volume.job("java_pid1.hprof")

    class Writing(MemoryStore):
        def _write(self) -> None:
            with path.open("ab") as file:
                file.write(b"more")

        def look(self, key: str) -> StoredObject | None:
            self._write()
            return super().look(key)

    changing = Writing(limits=store.limits)
    with pytest.raises(SourceChanged):
        agent_on(changing).upload(job)
    assert contents(changing) == {}
    assert changing.open_uploads("") == []


def test_bytes_that_change_behind_an_unchanged_size_and_time_are_not_stored(
    volume: Volume, store: MemoryStore, agent_on: AgentFor
) -> None:
    path = volume.root / volume.dump("java_pid1.hprof", some_bytes(LARGE))
    job = volume.job("java_pid1.hprof")

    class Rotting(MemoryStore):
        def begin(self, key: str, metadata: object) -> str:
            with path.open("r+b") as file:
                file.seek(3 * PART)
                file.write(b"rot")
            os.utime(path, ns=(0, job.dump.identity.mtime_ns))
            return super().begin(key, metadata)  # type: ignore[arg-type]

    rotting = Rotting(limits=store.limits)
    with pytest.raises(SourceChanged, match="bytes changed"):
        agent_on(rotting).upload(job)
    assert contents(rotting) == {}
    assert rotting.open_uploads("") == []


def test_every_size_up_to_5_tib_fits_into_10000_parts() -> None:
    limits = Limits()
    gib, tib = 1 << 30, 1 << 40
    for size in (0, 1, PART_BYTES, 5 * gib, 156 * gib, 157 * gib, 160 * gib, 1 * tib, 5 * tib - 1, 5 * tib):
        part = part_size(size, limits=limits)
        assert -(-size // part) <= limits.parts
        assert limits.part_min_bytes <= part <= limits.part_max_bytes
        assert part % PART_BYTES == 0
        if size <= 4 * tib:  # what every store takes
            assert -(-size // part) <= 1000
        large = large_part_size(size, part)
        assert large % part == 0
        assert large == part or (large <= 64 << 20 and size // large >= 8)
    assert part_size(5 * gib, limits=limits) == PART_BYTES
    assert large_part_size(5 * gib, PART_BYTES) == 64 << 20
    with pytest.raises(Refused, match="largest object"):
        part_size(5 * tib + 1, limits=limits)


def test_a_receipt_is_on_disk_when_the_dump_is_receipt(
    volume: Volume, store: MemoryStore, agent_on: AgentFor
) -> None:
    job = volume.job(volume.dump("java_pid1.hprof", some_bytes(SMALL)))
    agent_on(store).upload(job)
    ledger = Ledger(f"{volume.root}/.dumpagent", store=store.name)
    ledger.load()
    receipt = ledger.receipt(job.dump.identity)
    assert receipt is not None
    assert receipt.key == "java_pid1.hprof"
    assert ledger.all_unfinished() == []


class CountingStore(MemoryStore):
    """Remembers the numbers of the parts that it was sent."""

    def __init__(self, *, limits: Limits) -> None:
        super().__init__(limits=limits)
        self.sent: list[int] = []

    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        self.sent.append(number)
        return super().send_part(key, upload_id, number, body)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_dump_that_gives_way_again_and_again_arrives_and_sends_no_part_twice(
    packed: bool, volume: Volume
) -> None:
    """A tenant who writes one small dump after another must not keep a large one from ever arriving."""
    content = Maker().dump(segments=60, segment_bytes=400)
    store = CountingStore(limits=SMALL_LIMITS)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    ledger = Ledger(str(volume.root / ".dumpagent"), store=store.name)
    uploader = Uploader(
        store, Place(node_name="n"), part_bytes=PART, packed=packed, block_bytes=PART, workers=1
    )
    sent = store.sent
    uploader.give_way_when(lambda: False, turn_is_over=lambda: bool(sent) and len(sent) % 2 == 1)
    receipt: Receipt | None = None
    while receipt is None:
        try:
            receipt = uploader.upload(job, ledger)
        except Stopped:
            sent.append(-1)  # its next turn
    assert sent.count(-1) >= 3
    numbers = [number for number in sent if number > 0]
    assert numbers == sorted(set(numbers))
    stored = contents(store)[receipt.key]
    assert (gzip.decompress(stored) if packed else stored) == content
    assert store.open_uploads("") == []
