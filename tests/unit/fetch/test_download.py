"""A dump gets its name only when it is all there and right; whatever cuts a fetch off, the next one goes on."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

import pytest

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.fetch.download import target_of
from dumpagent.fetch.part_file import NoRoom, TargetTaken
from dumpagent.fetch.stored import StoredDump
from dumpagent.fetch.stream import ATTEMPTS, Damaged
from dumpagent.store.protocol import Replaced, StoredObject
from tests.harness.hprof import members
from tests.unit.fetch.breaking import BreakingStore
from tests.unit.fetch.conftest import DUMP, Bucket, Getter


def test_a_dump_arrives_whole_under_its_name_and_nobody_else_may_read_it(
    bucket: Bucket, getter: Getter
) -> None:
    """A heap holds passwords."""
    fetched = getter.get(bucket.store, bucket.put("a/x.hprof"))
    assert getter.files() == {"x.hprof": DUMP}
    assert fetched.checked
    assert stat.S_IMODE((getter.folder / "x.hprof").stat().st_mode) == 0o600


def test_an_empty_object_is_a_file_too(bucket: Bucket, getter: Getter) -> None:
    getter.get(bucket.store, bucket.put("a/x.hprof", b""))
    assert getter.files() == {"x.hprof": b""}


def test_a_connection_that_breaks_again_and_again_costs_nothing_that_has_arrived(
    bucket: Bucket, getter: Getter
) -> None:
    dump = bucket.put("x.hprof")
    store = BreakingStore(bucket.store, 1000, 0, 0, 5000, 1)
    assert getter.get(store, dump).checked
    assert store.reads == [0, 1000, 1000, 1000, 6000, 6001]
    assert getter.files() == {"x.hprof": DUMP}
    assert len(getter.notes) == 5


def test_a_store_that_gives_no_byte_any_more_ends_the_fetch_and_the_next_one_goes_on(
    bucket: Bucket, getter: Getter
) -> None:
    dump = bucket.put("x.hprof")
    with pytest.raises(Unreachable):
        getter.get(BreakingStore(bucket.store, 7000, *[0] * ATTEMPTS), dump)
    assert getter.files() == {getter.part(dump).name: DUMP[:7000]}
    store = BreakingStore(bucket.store)
    fetched = getter.get(store, dump)
    assert store.reads == [7000]
    assert (fetched.resumed_bytes, fetched.checked) == (7000, True)
    assert getter.files() == {"x.hprof": DUMP}


@pytest.mark.parametrize("size", [0, 1, 999, len(DUMP) - 1, len(DUMP), len(DUMP) + 1])
def test_a_fetch_goes_on_from_any_byte(bucket: Bucket, getter: Getter, size: int) -> None:
    dump = bucket.put("x.hprof")
    getter.part(dump).write_bytes((DUMP + b"more")[:size])
    assert getter.get(bucket.store, dump).checked
    assert getter.files() == {"x.hprof": DUMP}


def test_a_part_that_a_power_cut_left_full_of_zeros_is_found_out_and_fetched_anew(
    bucket: Bucket, getter: Getter
) -> None:
    dump = bucket.put("x.hprof")
    getter.part(dump).write_bytes(bytes(5000))
    fetched = getter.get(bucket.store, dump)
    assert (fetched.resumed_bytes, fetched.checked) == (0, True)
    assert getter.files() == {"x.hprof": DUMP}
    assert "damaged" in getter.notes[0]


def test_what_arrives_damaged_never_gets_the_name(bucket: Bucket, getter: Getter) -> None:
    dump = bucket.put("x.hprof", crc32="00000001")
    with pytest.raises(Damaged, match="CRC32"):
        getter.get(bucket.store, dump)
    assert list(getter.files()) == [getter.part(dump).name]


def test_an_object_without_a_checksum_is_fetched_and_said_to_be_unchecked(
    bucket: Bucket, getter: Getter
) -> None:
    found = bucket.put_bare("x.hprof", b"anything").stored
    bare = StoredDump(StoredObject(found.key, found.size_bytes, found.etag, found.modified), "x.hprof")
    assert not getter.get(bucket.store, bare).checked
    assert getter.files() == {"x.hprof": b"anything"}


def test_parts_of_two_objects_are_never_glued_together(bucket: Bucket, getter: Getter) -> None:
    """The object is replaced while it is fetched, at the moment that the connection breaks."""
    dump = bucket.put("x.hprof")
    other = DUMP[::-1]
    store = BreakingStore(bucket.store, 5000, then=lambda: bucket.put("x.hprof", other))
    with pytest.raises(Replaced, match="nothing of it is kept"):
        getter.get(store, dump)
    assert getter.files() == {}
    now = bucket.store.look("x.hprof")
    assert now is not None
    assert getter.get(bucket.store, StoredDump(now, "x.hprof")).checked
    assert getter.files() == {"x.hprof": other}


def test_a_part_of_an_object_that_was_replaced_since_is_not_used_and_is_named(
    bucket: Bucket, getter: Getter
) -> None:
    before = bucket.put("x.hprof")
    getter.part(before).write_bytes(DUMP[:5000])
    now = bucket.put("x.hprof", DUMP[::-1])
    getter.get(bucket.store, now)
    assert getter.files()["x.hprof"] == DUMP[::-1]
    assert getter.part(before).name in getter.notes[0]


def test_an_object_that_is_deleted_meanwhile_is_said_to_be_gone(bucket: Bucket, getter: Getter) -> None:
    dump = bucket.put("x.hprof")
    with pytest.raises(Refused, match="NoSuchKey"):
        getter.get(BreakingStore(bucket.store, 5000, then=lambda: bucket.store.delete("x.hprof")), dump)


def test_another_file_is_never_replaced_unless_that_is_asked_for(bucket: Bucket, getter: Getter) -> None:
    dump = bucket.put("x.hprof")
    (getter.folder / "x.hprof").write_bytes(b"mine")
    with pytest.raises(TargetTaken, match="not this dump"):
        getter.get(bucket.store, dump)
    assert getter.files() == {"x.hprof": b"mine"}
    getter.get(bucket.store, dump, force=True)
    assert getter.files() == {"x.hprof": DUMP}


def test_a_file_that_appears_during_the_fetch_is_not_replaced_either(bucket: Bucket, getter: Getter) -> None:
    dump = bucket.put("x.hprof")
    store = BreakingStore(bucket.store, 500, then=lambda: (getter.folder / "x.hprof").write_bytes(b"mine"))
    with pytest.raises(TargetTaken):
        getter.get(store, dump)
    assert getter.files() == {"x.hprof": b"mine", getter.part(dump).name: DUMP}


def test_a_dump_that_is_here_already_is_not_fetched_again(bucket: Bucket, getter: Getter) -> None:
    dump = bucket.put("x.hprof")
    (getter.folder / "x.hprof").write_bytes(DUMP)
    store = BreakingStore(bucket.store)
    assert getter.get(store, dump).there
    assert store.reads == []


@pytest.mark.parametrize("kind", ["directory", "dangling link", "fifo"])
def test_what_is_no_file_is_never_replaced(bucket: Bucket, getter: Getter, kind: str) -> None:
    target = getter.folder / "x.hprof"
    if kind == "directory":
        target.mkdir()
    elif kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to("nowhere")
    for force in (False, True):
        with pytest.raises(TargetTaken):
            getter.get(bucket.store, bucket.put("x.hprof"), force=force)


def test_two_fetches_of_one_dump_do_not_write_the_same_part(bucket: Bucket, getter: Getter) -> None:
    dump = bucket.put("x.hprof")
    with open(getter.part(dump), "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DumpagentError, match="another `dumpagent get`"):
            getter.get(bucket.store, dump)


def test_a_dump_that_does_not_fit_is_not_begun(bucket: Bucket, getter: Getter) -> None:
    small = bucket.put("x.hprof")
    huge = StoredObject("x.hprof", 1 << 60, small.stored.etag, small.stored.modified, small.stored.metadata)
    store = BreakingStore(bucket.store)
    with pytest.raises(NoRoom, match="bytes free"):
        getter.get(store, StoredDump(huge, "x.hprof"))
    assert store.reads == []


def test_the_unpacked_dump_must_fit_too(bucket: Bucket, getter: Getter) -> None:
    dump = bucket.put("x.hprof.gz", members(DUMP), original_size=str(1 << 60))
    with pytest.raises(NoRoom):
        getter.get(bucket.store, dump, gunzip=True)


@pytest.mark.parametrize("gunzip", [False, True])
@pytest.mark.parametrize("block_bytes", [100, 65536, 1 << 20])
def test_a_compressed_dump_is_checked_against_the_uncompressed_one(
    bucket: Bucket, getter: Getter, gunzip: bool, block_bytes: int
) -> None:
    packed = members(DUMP, block_bytes)
    fetched = getter.get(bucket.store, bucket.put_packed("x.hprof.gz", packed), gunzip=gunzip)
    assert fetched.checked
    assert getter.files() == {"x.hprof": DUMP if gunzip else packed}


def test_a_compressed_dump_that_unpacks_to_other_bytes_gets_no_name(bucket: Bucket, getter: Getter) -> None:
    dump = bucket.put_packed("x.hprof.gz", members(DUMP[:-1] + b"?"))
    with pytest.raises(Damaged):
        getter.get(bucket.store, dump)
    assert "x.hprof" not in getter.files()


def test_a_dump_that_the_jvm_compressed_is_checked_as_it_is_and_unpacked_on_request(
    bucket: Bucket, getter: Getter
) -> None:
    packed = members(DUMP)
    assert getter.get(bucket.store, bucket.put("x.hprof.gz", packed), gunzip=True).checked
    assert getter.files() == {"x.hprof": DUMP}


def test_a_compressed_dump_that_was_cut_is_kept_packed(bucket: Bucket, getter: Getter) -> None:
    """Its JVM was killed inside a member: `--gunzip` cannot be done, and says so; the packed bytes stay."""
    packed = members(DUMP)[:-20]
    dump = bucket.put("x.hprof.gz", packed)
    with pytest.raises(Damaged, match="ends inside a member"):
        getter.get(bucket.store, dump, gunzip=True)
    assert list(getter.files().values()) == [packed]
    assert getter.get(bucket.store, dump).checked


def test_gunzip_of_what_is_not_compressed_keeps_it(bucket: Bucket, getter: Getter) -> None:
    getter.get(bucket.store, bucket.put("x.hprof"), gunzip=True)
    assert getter.files() == {"x.hprof": DUMP}
    assert "not compressed" in getter.notes[0]


@pytest.mark.parametrize(
    ("key", "output", "gunzip", "target"),
    [
        ("shop/java_pid1.hprof", None, False, "java_pid1.hprof"),
        ("shop/java_pid1.hprof", "mine.hprof", False, "mine.hprof"),
        ("shop/java_pid1.hprof", "there/", False, "there/java_pid1.hprof"),
        ("shop/java_pid1.hprof.gz", None, True, "java_pid1.hprof"),
        ("shop/java_pid1.hprof.gz.2", None, True, "java_pid1.hprof.2"),
        ("shop/java_pid1.hprof.gz", None, False, "java_pid1.hprof.gz"),
        # Two pods of one Deployment: each file says whose it is, and the second does not find the first in its way.
        ("shop_cart-7d4f9c8b6-x2k9q/java_pid1.hprof", None, False, "shop_cart-7d4f9c8b6-x2k9q.hprof"),
        ("shop_cart-0/java_pid1.20261128T120301Z.hprof.gz", None, True, "shop_cart-0.20261128T120301Z.hprof"),
        ("shop_cart-0/heap.hprof", None, False, "heap.hprof"),
        # A name that no dump has could be that of a script, or of a file that a program reads.
        ("shop/heap", None, False, "heap.hprof"),
        ("shop/Makefile", None, False, "Makefile.hprof"),
        ("shop/run.sh", None, False, "run.sh.hprof"),
        ("shop/javaheap.phd.gz", None, False, "javaheap.phd.gz"),
        ("shop/java_pid1.HPROF", None, False, "java_pid1.HPROF"),
        ("shop/heap", "as-i-say", False, "as-i-say"),
    ],
)
def test_the_file_is_named_as_the_jvm_named_it(
    bucket: Bucket, key: str, output: str | None, gunzip: bool, target: str
) -> None:
    assert target_of(bucket.put(key), output, gunzip=gunzip) == target


@pytest.mark.parametrize("key", ["shop/.bashrc", ".hprof", "shop/a\x1b[2Jb.hprof", "shop/a\u202eforph.hprof"])
def test_a_key_makes_no_hidden_file_and_none_that_steers_a_terminal(
    bucket: Bucket, key: str, tmp_path: Path
) -> None:
    """Who may write to the bucket may not write to a developer's home directory."""
    with pytest.raises(TargetTaken) as refused:
        target_of(bucket.put(key), str(tmp_path), gunzip=False)
    assert "\x1b" not in str(refused.value)
    assert "\u202e" not in str(refused.value)


@pytest.mark.parametrize("key", ["shop/..", "shop/", "..", "shop/."])
def test_a_key_cannot_lead_out_of_the_directory(bucket: Bucket, key: str, tmp_path: Path) -> None:
    with pytest.raises(TargetTaken, match="no name for a file"):
        target_of(bucket.put(key), str(tmp_path), gunzip=False)
