"""A compressed dump comes into the store once and whole, goes on where it was cut off, and unpacks to the dump."""

from __future__ import annotations

import gzip
import os
import random
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumpagent.dumps.fingerprint import take_fingerprint
from dumpagent.dumps.receipt import PackedPart
from dumpagent.dumps.source import SourceChanged
from dumpagent.errors import Unreachable
from dumpagent.hprof.chunked import DENSE, FAST, announced_block_bytes, last_member
from dumpagent.part_sizes import Limits, can_pack_size, packed_part_size, workers_for
from dumpagent.settings import Place
from dumpagent.store.protocol import Body, Store, StoredObject
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.transfer import gzip_parts
from dumpagent.upload.transfer.gzip_parts import CompressionLevel, Piece, packed_pieces
from dumpagent.upload.transfer.uploader import Uploader
from tests.harness.faulty_store import FaultyStore
from tests.harness.stores.memory import MemoryStore
from tests.harness.sweeping import sweep_leftovers
from tests.unit.upload.conftest import PART, Agent, Volume, contents

BLOCK = 256
MAGIC = b"JAVA PROFILE 1.0.2\0"
SMALL, LARGE = 300, 12 * PART + 17


def dump_bytes(size: int) -> bytes:
    """A dump of which half compresses away."""
    rng = random.Random(size)
    return (MAGIC + b"".join(rng.randbytes(60) + bytes(60) for _ in range(size // 120 + 1)))[:size]


def packing(store: Store, volume: Volume, *, state: str = ".dumpagent", packed: bool = True) -> Agent:
    ledger = Ledger(str(volume.root / state), store=store.name)
    ledger.load()
    place = Place(node_name="node-a")
    uploader = Uploader(store, place, packed=packed, part_bytes=PART, block_bytes=BLOCK, workers=2)
    return Agent(uploader, ledger)


def unpacked(store: Store) -> dict[str, bytes]:
    return {key: gzip.decompress(content) for key, content in contents(store).items()}


@pytest.mark.parametrize("size", [len(MAGIC), SMALL, PART, LARGE])
def test_the_object_unpacks_to_the_dump_and_has_the_form_that_mat_reads(
    volume: Volume, store: MemoryStore, size: int
) -> None:
    content = dump_bytes(size)
    receipt = packing(store, volume).upload(volume.job(volume.dump("shop/java_pid1.hprof", content)))
    assert unpacked(store) == {"shop/java_pid1.hprof.gz": content}
    (packed,) = contents(store).values()
    assert announced_block_bytes(packed[:64]) == BLOCK
    assert receipt.sent_bytes == receipt.stored_bytes == len(packed)
    assert receipt.crc32 == zlib.crc32(content)
    found = store.look("shop/java_pid1.hprof.gz")
    assert found is not None
    assert found.metadata is not None
    assert found.metadata["crc32"] == f"{zlib.crc32(content):08x}"
    assert found.metadata["original-size"] == str(size)
    assert found.metadata["original-path"] == "shop/java_pid1.hprof"
    assert store.open_uploads("") == []


@pytest.mark.parametrize(
    "content",
    [gzip.compress(dump_bytes(LARGE), mtime=0), b"no heap dump at all", b""],
    ids=["gzip", "no dump", "empty"],
)
def test_what_is_gzip_already_or_no_dump_is_sent_as_it_is(
    volume: Volume, store: MemoryStore, content: bytes
) -> None:
    packing(store, volume).upload(volume.job(volume.dump("java_pid1.hprof.gz", content)))
    assert contents(store) == {"java_pid1.hprof.gz": content}


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("packed_first", [False, True])
def test_a_dump_that_is_stored_in_one_form_is_not_stored_in_the_other_too(
    volume: Volume, store: MemoryStore, size: int, packed_first: bool
) -> None:
    """COMPRESSION was changed, and the state is lost."""
    job = volume.job(volume.dump("java_pid1.hprof", dump_bytes(size)))
    packing(store, volume, packed=packed_first).upload(job)
    before = contents(store)
    again = packing(store, volume, packed=not packed_first, state="lost").upload(job)
    assert again.sent_bytes == 0
    assert contents(store) == before


@pytest.mark.parametrize("size", [SMALL, LARGE])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("state", ["kept", "lost"])
def test_a_cut_at_any_request_loses_and_doubles_nothing(
    volume: Volume, store: MemoryStore, size: int, after: bool, state: str
) -> None:
    """kill -9 or a lost answer at each request in turn; then the agent starts again, with its state or without."""
    content = dump_bytes(size)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    calls = FaultyStore(MemoryStore(limits=store.limits), Unreachable("never"))
    packing(calls, volume, state="counting").upload(job)
    for at in range(len(calls.calls)):
        fresh = MemoryStore(limits=store.limits)
        state_dir = f"state-{at}"
        try:
            broken = FaultyStore(fresh, Unreachable("the cut"), at=at, after=after)
            packing(broken, volume, state=state_dir).upload(job)
        except Unreachable:
            pass  # some requests may fail without harm
        if state == "lost":
            shutil.rmtree(volume.root / state_dir, ignore_errors=True)
        packing(fresh, volume, state=state_dir).upload(job)
        assert unpacked(fresh) == {"java_pid1.hprof.gz": content}
        sweep_leftovers(fresh, node="node-a")
        assert fresh.open_uploads("") == []


def test_an_upload_goes_on_from_the_parts_that_the_store_holds(volume: Volume, store: MemoryStore) -> None:
    content = dump_bytes(40 * PART)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    with pytest.raises(Unreachable):
        packing(FaultyStore(store, Unreachable("the cut"), at=20), volume).upload(job)
    receipt = packing(store, volume).upload(job)
    assert receipt.resumed
    assert 0 < receipt.sent_bytes < receipt.stored_bytes - 5 * PART // 2
    assert unpacked(store) == {"java_pid1.hprof.gz": content}


def test_an_object_that_is_not_whole_is_replaced(
    volume: Volume, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that lost the end of an object, or put something behind it; the state is lost as well."""
    monkeypatch.setattr(
        gzip_parts, "CompressionLevel", lambda: CompressionLevel(lambda: 0.0)
    )  # no line, so the same bytes each time
    content = dump_bytes(LARGE)
    job = volume.job(volume.dump("java_pid1.hprof", content))
    packing(store, volume).upload(job)
    found = store.look("java_pid1.hprof.gz")
    assert found is not None
    assert found.metadata is not None
    (whole,) = contents(store).values()
    for damaged in (whole[:-100], whole + b"\r\n0\r\n", whole[: whole.rindex(b"\x1f\x8b\x08")], b""):
        store.delete(found.key)
        store.put(found.key, Body(damaged, zlib.crc32(damaged)), found.metadata)
        packing(store, volume, state="lost").upload(job)
        assert contents(store) == {found.key: whole}
        shutil.rmtree(volume.root / "lost")


def test_bytes_that_change_behind_an_unchanged_size_and_time_are_not_stored(
    volume: Volume, store: MemoryStore
) -> None:
    content = dump_bytes(LARGE)
    path = volume.root / volume.dump("java_pid1.hprof", content)
    job = volume.job("java_pid1.hprof")

    class Rotting(MemoryStore):
        def look(self, key: str) -> StoredObject | None:
            with path.open("r+b") as file:
                file.seek(9 * PART)
                file.write(b"rot")
            os.utime(path, ns=(0, job.dump.identity.mtime_ns))
            return super().look(key)

    rotting = Rotting(limits=store.limits)
    ledger = Ledger(str(volume.root / "state"), store=rotting.name)
    uploader = Uploader(rotting, Place(), packed=True, part_bytes=PART // 2, block_bytes=BLOCK)
    sender = Agent(uploader, ledger)
    with pytest.raises(SourceChanged):
        sender.upload(job)
    assert contents(rotting) == {}
    assert rotting.open_uploads("") == []


def test_parts_suffice_for_every_dump_that_is_compressed_and_stay_small() -> None:
    """All parts of an object are equally long, and a dump that does not compress at all still fits."""
    limits, gib = Limits(), 1 << 30
    for size in (1, 8 * gib, 16 * gib, 60 * gib, 190 * gib, 300 * gib):
        part = packed_part_size(size, limits=limits, least_bytes=8 << 20)
        assert limits.part_min_bytes <= part <= 32 << 20
        assert part * limits.parts >= size * 1.01
        assert can_pack_size(size, limits=limits, least_bytes=8 << 20)
    assert packed_part_size(8 * gib, limits=limits, least_bytes=8 << 20) == 8 << 20
    assert packed_part_size(60 * gib, limits=limits, least_bytes=8 << 20) * 1000 >= 30 * gib
    assert not can_pack_size(400 * gib, limits=limits, least_bytes=8 << 20)


def _streams() -> Iterator[tuple[bytes, bytes | None]]:
    whole = gzip.compress(b"first") + gzip.compress(b"last")
    yield whole, b"last"
    yield whole + b"x", None
    yield whole[:-1], None
    yield b"", None
    yield gzip.compress(b"holds \x1f\x8b\x08 itself", 0), b"holds \x1f\x8b\x08 itself"


@pytest.mark.parametrize(
    ("tail", "wanted"), list(_streams()), ids=["two", "more", "cut", "none", "magic inside"]
)
def test_the_last_member_is_found_from_the_end(tail: bytes, wanted: bytes | None) -> None:
    assert last_member(tail) == wanted


def test_more_parts_go_out_at_once_to_a_store_far_away_unless_memory_is_scant() -> None:
    assert workers_for(0.001, None) == 2
    assert workers_for(0.1, None) == workers_for(0.1, 256 << 20) == 4
    assert workers_for(0.1, 96 << 20) == 2


def test_an_upload_that_was_cut_off_after_its_last_part_has_no_more_to_send(tmp_path: Path) -> None:
    """Its length is no multiple of a block: it once could never be finished."""
    path = tmp_path / "x.hprof"
    path.write_bytes(b"JAVA PROFILE 1.0.2\0" + bytes(100_001))
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        fingerprint = take_fingerprint(file.fileno(), size_bytes, block_bytes=4096)
        after = PackedPart('"e"', 1024, 0, size_bytes)
        assert (
            list(packed_pieces(file.fileno(), fingerprint, 1024, number=9, after=after, block_bytes=1024))
            == []
        )


class Line:
    """A clock, and a sender that waits `waits_s` for the line after each piece, which took `made_s` to make."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pace = CompressionLevel(lambda: self.now)

    def takes(self, *, made_s: float, waits_s: float) -> int:
        """Give the level of the next piece."""
        self.now += made_s
        self.pace.hand_over(Piece(1, Body(b"", 0), 0, 0))
        self.now += waits_s
        self.pace.go_on()
        return self.pace.level


def test_a_slow_line_gets_fewer_bytes_and_a_fast_one_costs_less_cpu() -> None:
    line = Line()
    assert line.pace.level == FAST
    assert line.takes(made_s=1, waits_s=0.1) == FAST
    assert line.takes(made_s=1, waits_s=2) == DENSE
    assert line.takes(made_s=1.7, waits_s=1.3) == DENSE  # still slower than we are
    assert line.takes(made_s=1.7, waits_s=0) == DENSE  # pieces are wanted in pairs
    levels = [line.takes(made_s=1.7, waits_s=0.1) for _ in range(6)]  # the line has become faster
    assert levels[-1] == FAST
    assert line.takes(made_s=1, waits_s=0.1) == FAST


def test_both_levels_are_of_one_stream(tmp_path: Path) -> None:
    """Pieces of a slow and of a fast line make one object that unpacks to the dump."""
    content = dump_bytes(40 * BLOCK + 7)
    path = tmp_path / "x.hprof"
    path.write_bytes(content)
    line = Line()
    with path.open("rb") as file:
        fingerprint = take_fingerprint(file.fileno(), len(content), block_bytes=4 * BLOCK)
        pieces, levels = list[Piece](), list[int]()
        for piece in packed_pieces(file.fileno(), fingerprint, 1024, block_bytes=BLOCK, level=line.pace):
            pieces.append(piece)
            levels.append(line.pace.level)
            line.now += len(pieces) % 2  # every second time the line is slow
    assert set(levels) == {FAST, DENSE}
    packed = b"".join(piece.body.data for piece in pieces if isinstance(piece.body.data, bytes))
    assert gzip.decompress(packed) == content
    assert [piece.start for piece in pieces[1:]] == [piece.end for piece in pieces[:-1]]
    assert {piece.body.size_bytes for piece in pieces[:-1]} == {1024}, "all but the last are equally long"
    assert pieces[-1].body.size_bytes <= 1024
