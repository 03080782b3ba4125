"""A dump that is written over while it is uploaded is stored anew and whole, never mixed."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
from collections.abc import Callable

import pytest

from dumpagent.settings import Place
from dumpagent.store.protocol import Body, Part
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import UploadLoop
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.judge import CompletenessJudge
from tests.harness.hprof import Maker
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, SMALL_LIMITS, Told, Volume, contents

MAKE = Maker()
FIRST, SECOND = MAKE.dump(segments=60), MAKE.dump(segments=90)


class MeddlingStore(MemoryStore):
    """Does something to the volume once, when a few parts have arrived."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        super().__init__(limits=SMALL_LIMITS)
        self.meddle, self.parts_sent = meddle, 0

    def send_part(self, key: str, upload_id: str, number: int, body: Body) -> Part:
        part = super().send_part(key, upload_id, number, body)
        self.parts_sent += 1
        if self.parts_sent == 3:
            self.meddle()
        return part


def loop_on(volume: Volume, store: MemoryStore, told: Told) -> UploadLoop:
    ledger = Ledger(f"{volume.root}/.dumpagent", store=store.name)
    ledger.load()
    return UploadLoop(
        root=str(volume.root),
        store=store,
        ledger=ledger,
        uploader=Uploader(store, Place(node_name="n"), part_bytes=PART, workers=1),
        judge=CompletenessJudge(quiet_s=0),
        tell=told,
        stop=threading.Event(),
        retention_days=7,
    )


def overwritten(volume: Volume) -> None:
    """As `jcmd GC.heap_dump -overwrite` does: truncate, write anew."""
    (volume.root / "a.hprof").write_bytes(SECOND)


def changed_at_one_size(volume: Volume) -> None:
    with (volume.root / "a.hprof").open("r+b") as dump:
        dump.seek(0)
        dump.write(SECOND[: len(FIRST)])


def replaced(volume: Volume) -> None:
    (volume.root / "new.tmp").write_bytes(SECOND)
    (volume.root / "new.tmp").rename(volume.root / "a.hprof")


@pytest.mark.parametrize(
    ("meddle", "left", "said"),
    [
        (overwritten, {"a.hprof": SECOND}, "it grew"),
        (changed_at_one_size, {"a.hprof": SECOND[: len(FIRST)]}, "written over"),
        (replaced, {"a.hprof": FIRST, "a.2026": SECOND}, ""),
    ],
)
def test_what_is_stored_in_the_end_is_whole_whichever_way_the_file_changed(
    volume: Volume, told: Told, meddle: Callable[[Volume], None], left: dict[str, bytes], said: str
) -> None:
    """A file that was replaced is open still, and goes on to be uploaded; its successor gets a key of its own."""
    store = MeddlingStore(lambda: meddle(volume))
    volume.dump("a.hprof", FIRST)
    loop = loop_on(volume, store, told)
    for _ in range(3):
        loop.look(whole=True)
        while loop.upload_next(timeout_s=0):
            pass
    changes = told.of("dump_changed")
    assert bool(changes) == bool(said)
    assert all(said in str(change["error"]) for change in changes)
    stored = contents(store)
    stored = {key: content for key, content in stored.items() if ".dumpagent" not in key}
    assert sorted(stored.values()) == sorted(left.values())
    counts = loop.counts
    assert counts.seen == counts.uploaded + counts.pending + counts.failed
    assert counts.pending == 0


def test_what_was_read_for_an_upload_does_not_stay_in_the_page_cache(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """After three dumps the working set of the pod stood at 120 to 183 MiB, page cache above all."""
    content = MAKE.dump(segments=40, segment_bytes=50_000)
    volume.dump("a.hprof", content)
    fd = os.open(volume.root / "a.hprof", os.O_RDONLY)
    os.fsync(fd)
    loop = loop_on(volume, store, told)
    loop.look(whole=True)
    assert loop.upload_next(timeout_s=0)
    assert (
        cached_share(fd, len(content)) < 0.2
    )  # the kernel keeps a few pages that it has not yet put on its lists
    os.close(fd)


def cached_share(fd: int, size_bytes: int) -> float:
    """Give the share of the file that is in the page cache, which the question does not change. Source: mincore(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(
        None, ctypes.c_size_t(size_bytes), mmap.PROT_READ, mmap.MAP_SHARED, fd, ctypes.c_long(0)
    )
    pages = (ctypes.c_ubyte * -(-size_bytes // mmap.PAGESIZE))()
    try:
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes), pages) == 0
    finally:
        libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size_bytes))
    return sum(page & 1 for page in pages) / len(pages)
