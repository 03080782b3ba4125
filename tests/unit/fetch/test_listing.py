"""Listing: everything in the bucket is shown, in the order of the dumps, with as few questions as that takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.fetch.choice import Ambiguous, NoSuchDump, choose, key_in, newest
from dumpagent.fetch.listing import WORKERS, find_objects, look_at
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.store.protocol import LookRefused, StoredObject
from tests.harness.stores.memory import MemoryStore
from tests.unit.fetch.conftest import NOON, Bucket, iso


class CountingStore(MemoryStore):
    """Counts the questions; `refused` keys are not told, and listing is refused if `unlisted`."""

    def __init__(self, behind: MemoryStore) -> None:
        self.__dict__.update(behind.__dict__)
        self.looks = 0
        self.refused: set[str] = set()
        self.stored_at: dict[str, float] = {}
        self.at_once, self.most_at_once = 0, 0
        self._count = threading.Lock()

    def look(self, key: str) -> StoredObject | None:
        with self._count:
            self.looks += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        time.sleep(0.001)
        with self._count:
            self.at_once -= 1
        if key in self.refused:
            raise LookRefused(f"looking at {key}: the store answered 403")
        return MemoryStore.look(self, key)

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        for stored in MemoryStore.objects(self, prefix):
            yield StoredObject(
                stored.key,
                stored.size_bytes,
                stored.etag,
                self.stored_at.get(stored.key, stored.modified),
            )


def dumps(store: MemoryStore, prefix: str = "", limit: int | None = None, **wanted: Any) -> list[StoredDump]:
    which = Wanted(**wanted)
    return look_at(store, find_objects(store, which, prefix=prefix), which, prefix=prefix, limit=limit)


def paths(found: list[StoredDump]) -> list[str]:
    return [dump.path for dump in found]


def test_dumps_are_listed_in_the_order_in_which_they_were_made(bucket: Bucket) -> None:
    for number in (2, 0, 1):
        bucket.put(f"{number}.hprof", dump_time=iso(NOON + number))
    assert paths(dumps(bucket.store)) == ["0.hprof", "1.hprof", "2.hprof"]


def test_what_carries_no_metadata_of_ours_is_listed_at_the_time_it_was_stored(bucket: Bucket) -> None:
    bucket.put("ours.hprof")
    bucket.put_bare("notes.txt", b"hello")
    bucket.put_bare("first-version.hprof", b"x", {"node": "w", "upload-time": "2020"})
    found = {dump.path: dump for dump in dumps(bucket.store)}
    assert next(iter(found)) == "ours.hprof"
    assert [found[path].labelled for path in ("ours.hprof", "notes.txt", "first-version.hprof")] == [
        True,
        False,
        False,
    ]
    assert found["notes.txt"].when == found["notes.txt"].stored.modified
    assert found["first-version.hprof"].node == "w"


@pytest.mark.parametrize("label", ["dump-time", "original-size", "crc32"])
@pytest.mark.parametrize("value", ["", "unknown", "-1", "9" * 300, "2026-13-45T00:00:00Z", "\u0663"])
def test_metadata_that_make_no_sense_are_as_good_as_none(bucket: Bucket, label: str, value: str) -> None:
    bucket.put("x.hprof", labels={label: value})
    (dump,) = dumps(bucket.store)
    assert dump.when > 0
    assert dump.checksum is not None


def test_an_object_whose_metadata_are_refused_is_listed_and_says_so(bucket: Bucket) -> None:
    bucket.put("seen.hprof")
    bucket.put("unseen.hprof")
    store = CountingStore(bucket.store)
    store.refused = {"unseen.hprof"}
    for node in ("", "worker-*"):
        found = {dump.path: dump.refused for dump in dumps(store, node=node)}
        assert found["seen.hprof"] is None
        assert "403" in str(found["unseen.hprof"])


def test_an_object_that_is_deleted_meanwhile_is_left_out(bucket: Bucket) -> None:
    bucket.put("x.hprof")
    objects = find_objects(bucket.store, Wanted())
    bucket.store.delete("x.hprof")
    assert look_at(bucket.store, objects, Wanted()) == []


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"app": "shop"}, ["shop/a.hprof", "shop/cart/b.hprof"]),
        ({"app": "/shop/cart/"}, ["shop/cart/b.hprof"]),
        ({"app": "sho"}, []),
        ({"part": "op"}, ["shop/a.hprof", "shop/cart/b.hprof", "shopping/c.hprof"]),
        ({"node": "worker-2"}, ["shopping/c.hprof"]),
        ({"node": "worker-?"}, ["shop/a.hprof", "shop/cart/b.hprof", "shopping/c.hprof"]),
        ({"since": NOON + 1}, ["shop/cart/b.hprof", "shopping/c.hprof"]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "team/heap"])
def test_filters(bucket: Bucket, prefix: str, wanted: dict[str, Any], expected: list[str]) -> None:
    root = f"{prefix}/" if prefix else ""
    bucket.put(f"{root}shop/a.hprof")
    bucket.put(f"{root}shop/cart/b.hprof", dump_time=iso(NOON + 1))
    bucket.put(f"{root}shopping/c.hprof", dump_time=iso(NOON + 2), node="worker-2")
    bucket.put("team/heaps/d.hprof", node="other", dump_time=iso(NOON - 1))
    assert paths(dumps(bucket.store, prefix, **wanted)) == expected


def test_thousands_are_asked_many_at_a_time_and_never_more(bucket: Bucket) -> None:
    for number in range(2000):
        bucket.put_bare(f"{number:04}.hprof", b"")
    store = CountingStore(bucket.store)
    assert len(dumps(store)) == 2000
    assert 2 <= store.most_at_once <= WORKERS


def test_the_newest_are_found_without_asking_about_all(bucket: Bucket) -> None:
    store = CountingStore(bucket.store)
    for number in range(500):
        key = f"{number:03}.hprof"
        bucket.put(key, dump_time=iso(NOON + 60 * number))
        store.stored_at[key] = NOON + 60 * number + 5
    assert paths(dumps(store, limit=2)) == ["498.hprof", "499.hprof"]
    assert store.looks <= 3 * WORKERS


def test_a_dump_that_was_stored_long_after_it_was_made_is_not_the_newest(bucket: Bucket) -> None:
    """The node had no network for a day."""
    store = CountingStore(bucket.store)
    for number in range(40):
        key = f"{number:02}.hprof"
        bucket.put(key, dump_time=iso(NOON + 60 * number))
        store.stored_at[key] = NOON + 86400 - number
    assert newest(store, Wanted(), now=NOON).path == "39.hprof"


def test_a_store_that_cannot_be_asked_ends_the_listing(bucket: Bucket) -> None:
    bucket.put("x.hprof")

    class Gone(CountingStore):
        def look(self, key: str) -> StoredObject | None:
            raise Unreachable("no answer")

    with pytest.raises(Unreachable):
        dumps(Gone(bucket.store))


@pytest.mark.parametrize(
    "part", ["shop/cart/java_pid1.hprof", "cart", "team/shop/cart/java_pid1.hprof", "cart/java"]
)
def test_a_dump_is_named_by_its_key_its_path_or_a_part_of_it(bucket: Bucket, part: str) -> None:
    bucket.put("team/shop/cart/java_pid1.hprof")
    bucket.put("team/shop/pay/java_pid1.hprof")
    assert (
        choose(bucket.store, Wanted(part=part), prefix="team", now=NOON).key
        == "team/shop/cart/java_pid1.hprof"
    )


def test_a_whole_path_is_never_ambiguous(bucket: Bucket) -> None:
    """Every dump's path begins that of the next dump of that JVM."""
    bucket.put("java_pid1.hprof")
    bucket.put("java_pid1.hprof.1")
    assert choose(bucket.store, Wanted(part="java_pid1.hprof"), now=NOON).path == "java_pid1.hprof"


def test_an_ambiguous_part_names_the_candidates(bucket: Bucket) -> None:
    for number in range(30):
        bucket.put(f"shop/{number}/java_pid1.hprof", dump_time=iso(NOON + number))
    with pytest.raises(Ambiguous, match="30 dumps") as caught:
        choose(bucket.store, Wanted(part="java"), now=NOON)
    assert paths(caught.value.candidates)[-1] == "shop/29/java_pid1.hprof"
    assert len(caught.value.candidates) == 10


@pytest.mark.parametrize(
    "typed", ["shop/chekout", "checkuot", "java_pid1.hprfo", "SHOP/CHECKOUT/JAVA_PID1.HPROF"]
)
def test_a_name_with_a_slip_gets_the_right_one_suggested(bucket: Bucket, typed: str) -> None:
    bucket.put("shop/checkout/java_pid1.hprof")
    bucket.put("bank/ledger/heap.hprof")
    with pytest.raises(NoSuchDump) as caught:
        choose(bucket.store, Wanted(part=typed), now=NOON)
    assert "did you mean shop/checkout/java_pid1.hprof?" in caught.value.hint


def test_an_empty_bucket_points_at_the_settings(bucket: Bucket) -> None:
    bucket.put("elsewhere/x.hprof")
    with pytest.raises(NoSuchDump, match="empty") as caught:
        newest(bucket.store, Wanted(), prefix="team", now=NOON)
    assert "S3_PREFIX" in caught.value.hint


def test_credentials_that_may_read_but_not_list_can_fetch_by_key(bucket: Bucket) -> None:
    bucket.put("shop/x.hprof")

    class Unlisted(CountingStore):
        def objects(self, prefix: str) -> Iterator[StoredObject]:
            raise LookRefused("listing: the store answered 403")

    store = Unlisted(bucket.store)
    assert choose(store, Wanted(part="shop/x.hprof"), now=NOON).path == "shop/x.hprof"
    store.refused = {"shop/y.hprof"}
    with pytest.raises(LookRefused, match="listing"):
        choose(store, Wanted(part="shop/y.hprof"), now=NOON)


def test_an_s3_address_is_a_key() -> None:
    assert key_in("s3://dumps/shop/x.hprof", "dumps") == "shop/x.hprof"
    with pytest.raises(DumpagentError, match="S3_BUCKET is dumps"):
        key_in("s3://other/shop/x.hprof", "dumps")
