"""What `Store` promises, asked of every store: the one in memory and the real ones over the network."""

from __future__ import annotations

import os
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from dumpagent.dumps.keys import is_own_key
from dumpagent.errors import Refused, Unreachable
from dumpagent.store.protocol import Body, Corrupted, NoSuchUpload, Occupied, Store, StoredObject
from dumpagent.store.reservation import reserve
from dumpagent.store.s3.profile import Digest
from dumpagent.store.s3.store import S3Store
from tests.harness.stores.memory import MemoryStore
from tests.stores.conftest import UnderTest

MIB = 1 << 20
# Multipart uploads have parts of 5 MiB at least, but for the last; random, so that nothing is equal by chance.
FIRST, LAST = os.urandom(5 * MIB), os.urandom(70_001)
WHOLE = FIRST + LAST

# As the agent's labels are: ASCII, no blanks at the ends; the rest as awkward as file names are.
METADATA = {
    "node": "worker-1.example.com",
    "original-path": "shop/a b/%C3%A9 100%/\"quoted\"/'x'/<&>;,=?#[]{}|\\^~`.hprof",
    "jvm": 'openjdk version "17.0.15" 2025-04-15',
    "crc32": "00000000",
    "dump-time": "2026-01-01T00:00:00Z",
    "long": "x" * 256,
}
KEYS = [
    "java_pid1.hprof",
    "team/shop/java_pid1.20260101T000000Z.worker-1.hprof",
    "blank in name/java pid1.hprof",
    "plus+percent%41%2F/a=b&c?d#e;f,g@h:i$j!k*(l)'m'.hprof",
    "ünicode/漢字/\N{PILE OF POO}.hprof",
    "dots/.../..hprof/.hidden.hprof",
    "a%0Ab/caf%E9.hprof",
    f"{'k' * 240}/{'l' * 240}/{'m' * 240}/{'n' * 237}",
]


def body(data: bytes) -> Body:
    return Body(data, zlib.crc32(data))


def content(store: Store, key: str) -> bytes:
    return b"".join(store.read(key))


def upload(store: Store, key: str) -> None:
    upload_id = store.begin(key, METADATA)
    parts = [store.send_part(key, upload_id, n, body(data)) for n, data in ((1, FIRST), (2, LAST))]
    store.complete(key, upload_id, parts, crc32=zlib.crc32(WHOLE))


@pytest.fixture
def store(under_test: UnderTest) -> Store:
    return under_test.store


# -- objects in one request


def test_the_bucket_answers(store: Store) -> None:
    store.check()


def test_what_was_put_can_be_looked_at_and_read(store: Store) -> None:
    before = time.time()
    store.put("a/dump.hprof", body(LAST), METADATA)
    found = store.look("a/dump.hprof")
    assert found is not None
    assert (found.key, found.size_bytes) == ("a/dump.hprof", len(LAST))
    assert found.metadata == METADATA
    assert found.crc32 in (None, zlib.crc32(LAST))
    assert abs(found.modified - before) < 120
    assert content(store, "a/dump.hprof") == LAST


def listed(store: Store) -> list[StoredObject]:
    """Give the objects that are not the agent's own: with one it tries what the store does."""
    return [found for found in store.objects("") if not is_own_key(found.key)]


def test_an_empty_object_can_be_put(store: Store) -> None:
    store.put("empty", body(b""), {})
    found = store.look("empty")
    assert found is not None
    assert found.size_bytes == 0
    assert content(store, "empty") == b""


@pytest.mark.parametrize("key", KEYS, ids=range(len(KEYS)))
def test_any_key_that_the_agent_makes_is_kept_as_it_is(store: Store, key: str) -> None:
    store.put(key, body(b"x"), {})
    assert [found.key for found in listed(store)] == [key]
    assert store.look(key) is not None
    assert content(store, key) == b"x"
    store.delete(key)
    assert store.look(key) is None


def test_nothing_under_a_key_is_none_and_not_an_error(store: Store) -> None:
    assert store.look("no/such.hprof") is None


def test_reading_what_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(Refused, match="no/such"):
        content(store, "no/such.hprof")


def test_an_object_can_be_read_from_any_place_on(store: Store) -> None:
    store.put("k", body(LAST), {})
    assert b"".join(store.read("k", start=70_000)) == LAST[70_000:]
    assert b"".join(store.read("k", start=10, length=5)) == LAST[10:15]


def test_an_object_is_never_overwritten(store: Store) -> None:
    store.put("k", body(b"first"), {"node": "1"})
    with pytest.raises(Occupied):
        store.put("k", body(b"second"), {"node": "2"})
    assert content(store, "k") == b"first"


def test_of_many_who_put_at_once_one_is_stored_and_the_others_are_told(under_test: UnderTest) -> None:
    """Not by OpenStack Swift: there several are told that theirs is stored, and one is."""
    store = under_test.store
    contents = [f"dump of node {n}".encode() * 1000 for n in range(6)]

    def put(data: bytes) -> bytes | None:
        try:
            store.put("k", body(data), {})
        except Occupied:
            return None
        return data

    with ThreadPoolExecutor(len(contents)) as pool:
        stored = [data for data in pool.map(put, contents) if data is not None]
    assert content(store, "k") in stored
    if under_test.quirks.conditions_hold_in_a_race:
        assert len(stored) == 1


def test_deleting_twice_is_as_good_as_once(store: Store) -> None:
    store.put("k", body(b"x"), {})
    store.delete("k")
    store.delete("k")
    assert store.look("k") is None


def test_a_listing_is_of_its_prefix_only_and_in_order_where_we_say_so(under_test: UnderTest) -> None:
    store = under_test.store
    for key in ("b/2", "b/1", "a/1", "b.x", "c/1"):
        store.put(key, body(key.encode() * 3), {})
    assert [(found.key, found.size_bytes) for found in store.objects("b/")] == [("b/1", 9), ("b/2", 9)]
    keys = [found.key for found in listed(store)]
    assert sorted(keys) == ["a/1", "b.x", "b/1", "b/2", "c/1"]
    assert (keys == sorted(keys)) is under_test.quirks.lists_in_key_order
    assert list(store.objects("none/")) == []


# -- objects in parts


def test_an_object_is_made_of_its_parts(store: Store) -> None:
    upload(store, "shop/dump.hprof")
    found = store.look("shop/dump.hprof")
    assert found is not None
    assert found.size_bytes == len(WHOLE)
    assert found.metadata == METADATA
    assert found.crc32 in (None, zlib.crc32(WHOLE))
    assert content(store, "shop/dump.hprof") == WHOLE
    assert store.open_uploads("") == []


def test_nothing_is_under_the_key_before_the_upload_is_complete(store: Store) -> None:
    upload_id = store.begin("k", {})
    store.send_part("k", upload_id, 1, body(LAST))
    assert store.look("k") is None
    store.abort("k", upload_id)
    assert store.look("k") is None
    assert list(listed(store)) == []


def test_an_upload_goes_on_from_the_parts_that_the_store_holds(under_test: UnderTest) -> None:
    """Another process, after kill -9: nothing but key and upload id is known."""
    upload_id = under_test.store.begin("k", METADATA)
    under_test.store.send_part("k", upload_id, 1, body(FIRST))

    store = under_test.again()
    (held,) = store.parts("k", upload_id)
    assert (held.number, held.size_bytes) == (1, len(FIRST))
    last = store.send_part("k", upload_id, 2, body(LAST))
    store.complete("k", upload_id, [held, last], crc32=zlib.crc32(WHOLE))
    assert content(store, "k") == WHOLE


def test_parts_may_come_in_any_order_and_twice(under_test: UnderTest) -> None:
    store, quirks = under_test.store, under_test.quirks
    upload_id = store.begin("k", {})
    replaced = store.send_part(
        "k", upload_id, 2, body(b"this is replaced" if quirks.replaces_parts else LAST)
    )
    first = store.send_part("k", upload_id, 1, body(FIRST))
    last = store.send_part("k", upload_id, 2, body(LAST))
    held = [(part.number, part.size_bytes, part.etag) for part in store.parts("k", upload_id)]
    if quirks.lists_replaced_parts:  # SeaweedFS shows both; by their ETags they are told apart
        held = [part for part in held if part[2] != replaced.etag]
    assert held == [(1, len(FIRST), first.etag), (2, len(LAST), last.etag)]
    store.complete("k", upload_id, [first, last], crc32=zlib.crc32(WHOLE))
    assert content(store, "k") == WHOLE


def test_an_open_upload_is_found_by_its_prefix(under_test: UnderTest) -> None:
    store = under_test.store
    upload_id = store.begin("mine/k", {})
    store.begin("other/k", {})
    (found,) = store.open_uploads("mine/")
    assert (found.key, found.upload_id) == ("mine/k", upload_id)
    if under_test.quirks.tells_when_uploads_began:  # moto says 2010
        assert abs(found.started - time.time()) < 120


def test_an_aborted_upload_is_gone_and_aborting_again_is_no_error(store: Store) -> None:
    upload_id = store.begin("k", {})
    store.send_part("k", upload_id, 1, body(LAST))
    store.abort("k", upload_id)
    store.abort("k", upload_id)
    assert store.open_uploads("") == []
    with pytest.raises(NoSuchUpload):
        store.parts("k", upload_id)
    assert store.look("k") is None


def test_a_part_for_an_upload_that_is_gone_is_refused(under_test: UnderTest) -> None:
    store = under_test.store
    upload_id = store.begin("k", {})
    store.abort("k", upload_id)
    # moto has an internal error then.
    with pytest.raises(NoSuchUpload if under_test.quirks.refuses_late_parts else Unreachable):
        store.send_part("k", upload_id, 1, body(LAST))


def keep(store: Store, key: str, metadata: dict[str, str]) -> None:
    """Reserve the key as an uploader does, where the store does not keep it by itself."""
    if store.must_reserve():
        reserve(store, key, metadata, prefix="")


def test_of_two_nodes_that_write_one_key_neither_overwrites_the_other(under_test: UnderTest) -> None:
    """Ceph RGW heeds no condition on completing: there a reservation beside the key keeps the other away."""
    ours, theirs = under_test.store, under_test.again()
    keep(ours, "k", METADATA)
    upload_id = ours.begin("k", METADATA)
    part = ours.send_part("k", upload_id, 1, body(LAST))
    try:
        keep(theirs, "k", {"crc32": "00000001", "original-size": "15"})
        theirs.put("k", body(b"of another node"), {})
    except Occupied:
        ours.complete("k", upload_id, [part], crc32=zlib.crc32(LAST))
        assert content(ours, "k") == LAST
    else:
        with pytest.raises(Occupied):
            ours.complete("k", upload_id, [part], crc32=zlib.crc32(LAST))
        assert content(ours, "k") == b"of another node"
        assert [held.number for held in ours.parts("k", upload_id)] == [1]


def test_of_two_nodes_that_begin_one_key_one_gets_it_and_the_other_is_told(under_test: UnderTest) -> None:
    nodes = {"a": under_test.store, "b": under_test.again()}
    stored, told = [], []
    begun = {}
    for name, store in nodes.items():
        try:
            described = {"crc32": f"{zlib.crc32(LAST + name.encode()):08x}", "original-size": name}
            keep(store, "k", described)
            begun[name] = store.begin("k", described)
        except Occupied:
            told.append(name)
    for name, upload_id in begun.items():
        part = nodes[name].send_part("k", upload_id, 1, body(LAST + name.encode()))
        try:
            nodes[name].complete("k", upload_id, [part], crc32=zlib.crc32(LAST + name.encode()))
            stored.append(name)
        except Occupied:
            told.append(name)
    assert len(stored) == 1
    assert sorted(stored + told) == ["a", "b"]
    assert content(under_test.store, "k") == LAST + stored[0].encode()


def test_completing_again_changes_nothing(store: Store) -> None:
    """An answer was lost: the upload is completed again by who cannot know."""
    upload_id = store.begin("k", METADATA)
    part = store.send_part("k", upload_id, 1, body(LAST))
    store.complete("k", upload_id, [part], crc32=zlib.crc32(LAST))
    try:
        store.complete("k", upload_id, [part], crc32=zlib.crc32(LAST))
    except (NoSuchUpload, Occupied):
        pass  # the honest answers; some say "done" again
    found = store.look("k")
    assert found is not None
    assert found.metadata == METADATA
    assert content(store, "k") == LAST


# -- bytes that were damaged on their way


def test_a_body_that_does_not_fit_its_crc32_is_not_stored(under_test: UnderTest) -> None:
    """Where the store verifies none, the agent sends an MD5 made from the same bytes: see test_faults.py for that."""
    store = under_test.store
    wrong = Body(LAST, crc32=zlib.crc32(LAST) ^ 1)
    if not under_test.quirks.verifies_crc32:
        assert isinstance(store, S3Store)
        store.put("k", wrong, {})
        assert store.profile.digest is (Digest.MD5 if under_test.quirks.verifies_md5 else Digest.NONE)
        return
    with pytest.raises(Corrupted):
        store.put("k", wrong, {})
    assert store.look("k") is None

    upload_id = store.begin("k", {})
    good = store.send_part("k", upload_id, 1, body(LAST))
    with pytest.raises(Corrupted):
        store.send_part("k", upload_id, 1, Body(FIRST, crc32=1))
    assert store.parts("k", upload_id)[0].etag == good.etag


def test_the_whole_is_checked_where_the_store_keeps_one_checksum_of_it(under_test: UnderTest) -> None:
    store = under_test.store
    if not isinstance(store, MemoryStore) and not under_test.quirks.verifies_whole_checksum:
        return  # the agent reads the object back, or trusts its parts
    upload_id = store.begin("k", {})
    part = store.send_part("k", upload_id, 1, body(LAST))
    with pytest.raises(Corrupted):
        store.complete("k", upload_id, [part], crc32=1)
    assert store.look("k") is None


# -- storage class


def test_a_storage_class_is_used_where_it_is_known_and_left_out_elsewhere(under_test: UnderTest) -> None:
    store = under_test.store
    store.put("one", body(b"x"), {})
    upload(store, "many")
    if isinstance(store, S3Store):
        known = under_test.quirks.knows_standard_ia
        assert store.profile.storage_class is known
        for key in ("one", "many"):
            found = store.look(key)
            assert found is not None
            # Below 128 KiB STANDARD_IA costs more than it saves, so "one" goes to STANDARD.
            assert found.storage_class == ("STANDARD_IA" if known and key == "many" else "STANDARD")
