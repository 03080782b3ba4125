"""The list of dumps comes from the index, a request for a thousand, and nobody's objects are taken for dumps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dumpagent.fetch.catalogue import list_dumps, list_everything, newest_dumps
from dumpagent.fetch.choice import NoSuchDump, choose, newest
from dumpagent.fetch.companions import companion_name, companions_of_each
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.index.writer import entry_of_object, write_entry
from dumpagent.store.protocol import StoredObject
from tests.harness.stores.memory import MemoryStore
from tests.unit.fetch.conftest import NOON, Bucket, iso

DAY = 86400


class CountingStore(MemoryStore):
    """Counts what a store is asked: listings by pages of a thousand, and questions about one object."""

    def __init__(self) -> None:
        super().__init__()
        self.listings = 0
        self.looks = 0

    def objects(self, prefix: str) -> Iterator[StoredObject]:
        self.listings += 1
        for number, stored in enumerate(super().objects(prefix)):
            if number and number % 1000 == 0:
                self.listings += 1
            yield stored

    def look(self, key: str) -> StoredObject | None:
        self.looks += 1
        return super().look(key)


@pytest.fixture
def counted() -> Bucket:
    return Bucket(CountingStore())


def put(bucket: Bucket, key: str, *, prefix: str = "", **labels: str) -> StoredDump:
    """Store a dump with its index entry, as the agent does."""
    dump = bucket.put(
        key, labels={"agent-version": "0.2.0", **{k.replace("_", "-"): v for k, v in labels.items()}}
    )
    index(bucket, dump, prefix=prefix)
    return dump


def index(bucket: Bucket, dump: StoredDump, *, prefix: str = "") -> None:
    entry = entry_of_object(
        dump.key, dump.size_bytes, dump.stored.metadata, prefix=prefix, stored_at=dump.stored.modified
    )
    write_entry(bucket.store, entry, prefix=prefix)


def paths(dumps: list[StoredDump] | None) -> list[str]:
    assert dumps is not None
    return [dump.path for dump in dumps]


def test_a_list_of_thousands_asks_about_no_dump(counted: Bucket) -> None:
    store = counted.store
    assert isinstance(store, CountingStore)
    for number in range(2500):
        put(counted, f"shop_cart-{number}.hprof", dump_time=iso(NOON - number * 60))
    store.looks = store.listings = 0
    found = list_dumps(store, Wanted(), now=NOON)
    assert found is not None
    assert len(found) == 2500
    assert found[-1].path == "shop_cart-0.hprof"
    assert (store.looks, store.listings) == (0, 3)
    store.listings = 0
    assert len(list_dumps(store, Wanted(since=NOON - 60 * 60), now=NOON) or []) == 61
    assert store.looks == 0
    assert store.listings <= 10


def test_an_entry_tells_what_the_metadata_tell(bucket: Bucket) -> None:
    dump = put(
        bucket,
        "shop_cart-7d4f9c8b6-x2k9q/java_pid1.hprof",
        pod="cart-7d4f9c8b6-x2k9q",
        namespace="shop",
        workload="cart",
    )
    (listed,) = list_dumps(bucket.store, Wanted(), now=NOON) or []
    for told in (
        "key",
        "path",
        "node",
        "verdict",
        "cause",
        "size_bytes",
        "original_size_bytes",
        "owner",
        "when",
        "checksum",
    ):
        assert getattr(listed, told) == getattr(dump, told), told


def test_a_bucket_without_an_index_says_so(bucket: Bucket) -> None:
    bucket.put("shop/x.hprof")
    assert list_dumps(bucket.store, Wanted(), now=NOON) is None
    assert newest_dumps(bucket.store, Wanted(), now=NOON) is None


def test_everything_shows_objects_without_an_entry_and_none_of_our_own(bucket: Bucket) -> None:
    put(bucket, "shop/a.hprof")
    bucket.put("shop/b.hprof")
    bucket.put_bare("shop/oom.dump", b"by hand")
    for own in (
        ".dumpagent/reservations/x",
        ".dumpagent-trial",
        "shop/a.hprof.report.json",
        "shop/a.hprof.report.html",
    ):
        bucket.put_bare(own, b"{}")
    assert paths(list_dumps(bucket.store, Wanted(), now=NOON)) == ["shop/a.hprof"]
    assert sorted(paths(list_everything(bucket.store, Wanted()))) == [
        "shop/a.hprof",
        "shop/b.hprof",
        "shop/oom.dump",
    ]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(namespace="shop"), ["1", "2"]),
        (Wanted(namespace="s*"), ["1", "2", "3"]),
        (Wanted(workload="cart"), ["1", "3"]),
        (Wanted(workload="shop/cart"), ["1"]),
        (Wanted(pod="db-0"), ["2"]),
        (Wanted(node="worker-2"), ["3"]),
        (Wanted(verdict="truncated"), ["2"]),
        (Wanted(cause="request"), ["3"]),
    ],
)
def test_a_list_is_narrowed_by_what_is_known(bucket: Bucket, wanted: Wanted, found: list[str]) -> None:
    put(bucket, "shop_cart-7d4f9c8b6-x2k9q/1.hprof")
    put(bucket, "shop_db-0/2.hprof", verdict="truncated")
    put(bucket, "sales/cart/3.hprof", node="worker-2", cause="request")
    listed = list_dumps(bucket.store, wanted, now=NOON)
    assert sorted(dump.name.removesuffix(".hprof") for dump in listed or []) == found


def test_the_newest_is_found_in_the_last_days_first_and_in_years_too(counted: Bucket) -> None:
    store = counted.store
    assert isinstance(store, CountingStore)
    for number in range(1200):
        put(counted, f"shop_old-{number}.hprof", dump_time=iso(NOON - 400 * DAY - number))
    put(counted, "shop_new-0.hprof", dump_time=iso(NOON - 3600))
    store.listings = 0
    assert newest(store, Wanted(), now=NOON).path == "shop_new-0.hprof"
    assert store.listings <= 5
    assert newest(store, Wanted(workload="old"), now=NOON).path == "shop_old-0.hprof"


def test_a_dump_that_was_deleted_by_hand_is_named_as_gone(bucket: Bucket) -> None:
    put(bucket, "shop/a.hprof")
    bucket.store.delete("shop/a.hprof")
    with pytest.raises(NoSuchDump, match="gone"):
        choose(bucket.store, Wanted(part="shop/a"), now=NOON)


def test_a_dump_of_an_older_agent_is_chosen_beside_an_index(bucket: Bucket) -> None:
    put(bucket, "shop/a.hprof")
    bucket.put("sales/b.hprof")
    assert choose(bucket.store, Wanted(part="sales"), now=NOON).path == "sales/b.hprof"


def test_a_dump_from_a_clock_that_was_ahead_is_found_by_its_upload(bucket: Bucket) -> None:
    put(bucket, "shop/a.hprof", dump_time=iso(NOON + 4000 * DAY), upload_time=iso(NOON))
    assert paths(list_dumps(bucket.store, Wanted(since=NOON - DAY), now=NOON)) == ["shop/a.hprof"]


def test_an_entry_is_written_once(bucket: Bucket) -> None:
    dump = bucket.put("shop/a.hprof")
    index(bucket, dump)
    index(bucket, dump)
    assert len(list_dumps(bucket.store, Wanted(), now=NOON) or []) == 1


def test_a_path_too_long_for_a_key_is_listed_too(bucket: Bucket) -> None:
    path = "x" * 230 + "/" + "y" * 230 + "/" + "z" * 230 + "/" + "w" * 200 + "/a.hprof"
    put(bucket, path)
    assert paths(list_dumps(bucket.store, Wanted(), now=NOON)) == [path]


def test_the_files_beside_a_dump_are_found_with_it_and_are_no_dumps() -> None:
    bucket = Bucket()
    dump = put(bucket, "shop/java_pid1.hprof")
    other = put(bucket, "shop/java_pid2.hprof")
    for name in ("hs_err_pid1.log", "gc.log"):
        bucket.put_bare(f"shop/java_pid1.20260101T120000Z.companions/{name}", b"evidence")
    assert paths(list_everything(bucket.store, Wanted())) == ["shop/java_pid1.hprof", "shop/java_pid2.hprof"]
    beside = companions_of_each(bucket.store, [dump, other])
    assert {key: [companion_name(each) for each in found] for key, found in beside.items()} == {
        "shop/java_pid1.hprof": ["gc.log", "hs_err_pid1.log"]
    }
    (indexed, _) = list_dumps(bucket.store, Wanted(), now=NOON) or []
    assert indexed.companion_folder == dump.companion_folder
