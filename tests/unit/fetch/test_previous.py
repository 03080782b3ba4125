"""The dump before another one is of the same workload, whatever pods wrote the two."""

from __future__ import annotations

import pytest

from dumpagent.fetch.choice import NoSuchDump
from dumpagent.fetch.previous import previous
from dumpagent.fetch.stored import StoredDump
from dumpagent.index.writer import entry_of_object, write_entry
from tests.unit.fetch.conftest import NOON, Bucket, iso

DAY_S = 86400


def put(bucket: Bucket, key: str, day: int, *, indexed: bool = True, **labels: str) -> StoredDump:
    """Store a dump of this day with its index entry."""
    told = {"agent-version": "0.2.0", "dump-time": iso(NOON + day * DAY_S), **labels}
    found = bucket.put(key, labels=told)
    if indexed:
        entry = entry_of_object(
            key, found.size_bytes, found.stored.metadata, prefix="", stored_at=found.stored.modified
        )
        write_entry(bucket.store, entry, prefix="")
    return found


def before(bucket: Bucket, dump: StoredDump) -> str:
    return previous(bucket.store, dump, now=NOON + 40 * DAY_S).path


@pytest.mark.parametrize("indexed", [True, False])
def test_the_newest_older_dump_of_the_workload_is_found(bucket: Bucket, indexed: bool) -> None:
    put(bucket, "a.hprof", 0, indexed=indexed, namespace="shop", workload="cart", pod="cart-1")
    put(bucket, "b.hprof", 2, indexed=indexed, namespace="shop", workload="cart", pod="cart-2")
    put(bucket, "other-workload.hprof", 4, indexed=indexed, namespace="shop", workload="pay")
    put(bucket, "other-namespace.hprof", 4, indexed=indexed, namespace="test", workload="cart")
    new = put(bucket, "c.hprof", 5, indexed=indexed, namespace="shop", workload="cart", pod="cart-3")
    put(bucket, "later.hprof", 6, indexed=indexed, namespace="shop", workload="cart")
    assert before(bucket, new) == "b.hprof"


def test_a_workload_of_the_same_name_in_another_cluster_is_another_one(bucket: Bucket) -> None:
    put(bucket, "a.hprof", 0, namespace="shop", workload="cart", cluster="blue")
    put(bucket, "b.hprof", 1, namespace="shop", workload="cart", cluster="green")
    new = put(bucket, "c.hprof", 2, namespace="shop", workload="cart", cluster="blue")
    assert before(bucket, new) == "a.hprof"


def test_a_cut_dump_is_taken_only_where_there_is_no_whole_one(bucket: Bucket) -> None:
    put(bucket, "cut.hprof", 1, namespace="shop", workload="cart", verdict="truncated")
    new = put(bucket, "c.hprof", 2, namespace="shop", workload="cart")
    assert before(bucket, new) == "cut.hprof"
    put(bucket, "whole.hprof", 0, namespace="shop", workload="cart")
    assert before(bucket, new) == "whole.hprof"


def test_without_a_workload_the_directory_stands_for_it(bucket: Bucket) -> None:
    put(bucket, "Batch/Night/one.hprof", 0)
    put(bucket, "Batch/Day/two.hprof", 1)
    assert before(bucket, put(bucket, "Batch/Night/three.hprof", 2)) == "Batch/Night/one.hprof"


def test_the_first_dump_of_a_workload_has_none_before_it(bucket: Bucket) -> None:
    new = put(bucket, "a.hprof", 0, namespace="shop", workload="cart")
    with pytest.raises(NoSuchDump, match="no dump of shop/cart that is older"):
        before(bucket, new)
    with pytest.raises(NoSuchDump, match="of which workload"):
        before(bucket, put(bucket, "bare.hprof", 1))
