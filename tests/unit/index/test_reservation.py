"""Where nothing can be deleted, a reservation is the index entry of its dump."""

from __future__ import annotations

import time
import zlib

from dumpagent.dumps.metadata import read_metadata
from dumpagent.fetch.catalogue import list_dumps
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.index.entry import entry_of
from dumpagent.index.lost import entry_of_time, with_metadata
from dumpagent.index.reader import read_entries
from dumpagent.index.writer import write_entry
from dumpagent.prune.plan import make_plan
from dumpagent.prune.policy import Rules
from dumpagent.store.protocol import Body
from dumpagent.store.reservation import reservation_key, reserve
from tests.harness.stores.memory import MemoryStore

TOLD = {
    "node": "node-1", "dump-time": "2026-11-28T10:38:02Z", "verdict": "complete", "cause": "oom",
    "original-size": "5", "crc32": f"{zlib.crc32(b'bytes'):08x}", "agent-version": "0.2.0",
}  # fmt: skip


def a_bucket(*, with_object: bool = True, prefix: str = "p") -> MemoryStore:
    store = MemoryStore()
    reserve(store, f"{prefix}/shop/a.hprof", TOLD, prefix=prefix)
    if with_object:
        store.put(f"{prefix}/shop/a.hprof", Body(b"bytes", zlib.crc32(b"bytes")), {})
    return store


def test_a_reservation_whose_dump_is_there_is_listed_as_an_entry() -> None:
    found = list_dumps(a_bucket(), Wanted(), prefix="p", now=time.time())
    assert found is not None
    assert [(dump.path, dump.node, dump.verdict, dump.size_bytes) for dump in found] == [
        ("shop/a.hprof", "node-1", "complete", 5)
    ]
    late = time.time() + 60
    assert list(read_entries(a_bucket(), prefix="p", since=late, now=late)) == []


def test_a_reservation_whose_upload_is_under_way_is_no_entry() -> None:
    assert list(read_entries(a_bucket(with_object=False), prefix="p", now=time.time())) == []


def test_a_dump_with_an_entry_and_a_reservation_is_listed_once() -> None:
    store = a_bucket()
    write_entry(store, entry_of("shop/a.hprof", 5, read_metadata(TOLD), stored_at=2e9), prefix="p")
    assert len(list(read_entries(store, prefix="p", now=time.time()))) == 1


def test_metadata_that_a_store_has_dropped_are_read_from_the_index() -> None:
    store = MemoryStore()
    store.put("a.hprof", Body(b"bytes", zlib.crc32(b"bytes")), {})
    write_entry(store, entry_of("a.hprof", 5, read_metadata(TOLD), stored_at=2e9))
    found = store.look("a.hprof")
    assert found
    dump = StoredDump(with_metadata(store, found, prefix=""), "a.hprof")
    assert (dump.node, dump.verdict) == ("node-1", "complete")
    assert dump.checksum
    assert dump.checksum.crc32 == zlib.crc32(b"bytes")
    when = read_metadata(TOLD).dumped
    assert when
    assert entry_of_time(store, "a.hprof", when + 0.9, prefix="")
    assert entry_of_time(store, "b.hprof", when, prefix="") is None


def test_a_prune_takes_the_reservation_with_its_dump() -> None:
    store = a_bucket()
    for number in range(2):
        reserve(
            store,
            f"p/shop/b{number}.hprof",
            {**TOLD, "dump-time": f"2026-11-2{number}T10:00:00Z"},
            prefix="p",
        )
        store.put(f"p/shop/b{number}.hprof", Body(b"bytes", zlib.crc32(b"bytes")), {})
    plan = make_plan(
        store, Rules(keep_last=1, keep_largest=0, keep_days=0), prefix="p", now=time.time() + 1e8
    )
    (doomed,) = plan.doomed
    assert [stored.key for stored in doomed.beside] == [reservation_key(doomed.dump.key, prefix="p")]
