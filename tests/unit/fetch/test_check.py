"""verify: a dump is intact only if every byte is the one that was sent."""

from __future__ import annotations

import gzip

import pytest

from dumpagent.fetch.check import Integrity, Verified, verify
from dumpagent.fetch.stored import StoredDump
from dumpagent.hprof.walk import Shape
from dumpagent.store.protocol import Replaced, StoredObject
from tests.harness.hprof import HEAP_DUMP, Maker, members, record
from tests.unit.fetch.breaking import BreakingStore
from tests.unit.fetch.conftest import DUMP, Bucket

LARGE = Maker().dump(segments=3, segment_bytes=900_000)


def check(bucket: Bucket, dump: StoredDump) -> Verified:
    """Verify over a store that gives chunks of 1000 bytes."""
    return verify(BreakingStore(bucket.store), dump, pause=lambda _s: None)


@pytest.mark.parametrize("content", [DUMP, LARGE], ids=["small", "large"])
def test_a_dump_as_it_was_sent_is_intact_and_complete(bucket: Bucket, content: bytes) -> None:
    verified = check(bucket, bucket.put("x.hprof", content))
    assert (verified.integrity, verified.complete) == (Integrity.INTACT, True)


@pytest.mark.parametrize("at", [40, len(DUMP) // 2, len(DUMP) - 1])
def test_one_other_bit_is_damage(bucket: Bucket, at: int) -> None:
    crc32 = bucket.put("x.hprof").stored.metadata or {}
    damaged = DUMP[:at] + bytes([DUMP[at] ^ 1]) + DUMP[at + 1 :]
    verified = check(bucket, bucket.put("x.hprof", damaged, crc32=crc32["crc32"]))
    assert verified.integrity is Integrity.DAMAGED


@pytest.mark.parametrize("packed_by", ["agent", "jvm"])
def test_compressed_dumps_are_checked_and_walked_too(bucket: Bucket, packed_by: str) -> None:
    packed = members(LARGE)
    dump = (
        bucket.put_packed("x.hprof.gz", packed, LARGE)
        if packed_by == "agent"
        else bucket.put("x.hprof.gz", packed)
    )
    verified = check(bucket, dump)
    assert (verified.integrity, verified.complete) == (Integrity.INTACT, True)


def test_damage_inside_a_compressed_dump_is_found(bucket: Bucket) -> None:
    packed = bytearray(members(DUMP))
    packed[len(packed) // 2] ^= 1
    verified = check(bucket, bucket.put_packed("x.hprof.gz", bytes(packed)))
    assert verified.integrity is Integrity.DAMAGED


def test_a_compressed_dump_that_unpacks_to_something_else_is_damaged(bucket: Bucket) -> None:
    dump = bucket.put_packed("x.hprof.gz", gzip.compress(DUMP[:-1] + b"?"))
    assert check(bucket, dump).integrity is Integrity.DAMAGED


def test_a_truncated_dump_that_is_stored_as_it_was_is_intact_and_not_complete(bucket: Bucket) -> None:
    """The store did its part; the dump never had an end."""
    verified = check(bucket, bucket.put("x.hprof", DUMP[:-9], verdict="truncated"))
    assert (verified.integrity, verified.walked.shape) == (Integrity.INTACT, Shape.OPEN)


def test_a_dump_said_to_be_complete_that_is_not_is_damaged(bucket: Bucket) -> None:
    verified = check(bucket, bucket.put("x.hprof", DUMP[:-9]))
    assert verified.integrity is Integrity.DAMAGED
    assert "stored as complete" in verified.reason


def test_without_a_checksum_nothing_is_proven(bucket: Bucket) -> None:
    found = bucket.put_bare("x.hprof", DUMP).stored
    bare = StoredDump(StoredObject(found.key, found.size_bytes, found.etag, found.modified), "x.hprof")
    verified = check(bucket, bare)
    assert (verified.integrity, verified.complete) == (Integrity.UNPROVEN, True)


def test_the_stores_own_checksum_counts_where_the_agent_left_none(bucket: Bucket) -> None:
    assert check(bucket, bucket.put_bare("x.hprof", DUMP)).integrity is Integrity.INTACT


def test_a_dump_in_the_oldest_format_is_walked_as_well(bucket: Bucket) -> None:
    old = Maker(version="1.0.1").head() + record(HEAP_DUMP, Maker().segment(5000)[9:])
    assert check(bucket, bucket.put("x.hprof", old)).complete


@pytest.mark.parametrize(
    "content", [b"", b"J", b"no dump at all", b"\x1f\x8b\x08", gzip.compress(b"", mtime=0)]
)
def test_an_object_that_is_no_dump_is_intact_and_not_complete(bucket: Bucket, content: bytes) -> None:
    verified = check(bucket, bucket.put("x.hprof", content, verdict="unknown"))
    assert (verified.integrity, verified.complete) == (Integrity.INTACT, False)


def test_a_broken_connection_changes_nothing(bucket: Bucket) -> None:
    dump = bucket.put("x.hprof", LARGE)
    store = BreakingStore(bucket.store, 100_000, 1, 0, 1_000_000)
    assert verify(store, dump, pause=lambda _s: None).integrity is Integrity.INTACT


def test_an_object_that_is_replaced_meanwhile_is_no_finding(bucket: Bucket) -> None:
    dump = bucket.put("x.hprof")
    store = BreakingStore(bucket.store, 100, then=lambda: bucket.put("x.hprof", LARGE))
    with pytest.raises(Replaced):
        verify(store, dump, pause=lambda _s: None)
