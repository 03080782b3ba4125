"""`--gunzip` never puts more on the disk than a dump has, whatever the object unpacks to."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from dumpagent.fetch import unpacking
from dumpagent.fetch.part_file import NoRoom
from dumpagent.fetch.stream import Damaged
from tests.harness.hprof import members
from tests.unit.fetch.conftest import DUMP, Bucket, Getter

MIB = 1 << 20


def bomb(size_bytes: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b"".join(packer.compress(bytes(MIB)) for _ in range(size_bytes // MIB))
    return packed + packer.flush()


def test_more_than_the_dump_had_is_refused_before_it_is_written(bucket: Bucket, getter: Getter) -> None:
    """Its metadata tell 120 kB, its bytes unpack to 64 MiB."""
    dump = bucket.put_packed("x.hprof.gz", bomb(64 * MIB), DUMP)
    with pytest.raises(Damaged, match="unpacks to more than"):
        getter.get(bucket.store, dump, gunzip=True)
    assert sum(len(content) for content in getter.files().values()) == dump.size_bytes


def test_what_no_heap_dump_unpacks_to_is_refused_where_nobody_has_told_its_size(
    bucket: Bucket, getter: Getter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "_ALWAYS_BYTES", MIB)
    dump = bucket.put("x.hprof.gz", bomb(64 * MIB))
    with pytest.raises(Damaged, match="which no heap dump does"):
        getter.get(bucket.store, dump, gunzip=True)
    assert sum(len(content) for content in getter.files().values()) == dump.size_bytes


def test_the_room_is_measured_before_a_dump_that_the_jvm_compressed_is_unpacked(
    bucket: Bucket, getter: Getter, monkeypatch: pytest.MonkeyPatch
) -> None:
    dump = bucket.put("x.hprof.gz", members(DUMP))
    monkeypatch.setattr(unpacking, "room_bytes", lambda _fd: len(DUMP) - 1)
    with pytest.raises(NoRoom, match="room for"):
        getter.get(bucket.store, dump, gunzip=True)
    assert sum(len(content) for content in getter.files().values()) == dump.size_bytes


def test_a_name_that_somebody_else_has_put_in_the_way_of_the_unpacked_file_is_taken_from_it(
    bucket: Bucket, getter: Getter, tmp_path: Path
) -> None:
    """A link there would let the heap be written over another file."""
    dump = bucket.put_packed("x.hprof.gz", members(DUMP))
    victim = tmp_path / "precious"
    victim.write_bytes(b"precious")
    Path(f"{getter.part(dump)}.unpacked").symlink_to(victim)
    getter.get(bucket.store, dump, gunzip=True)
    assert getter.files() == {"x.hprof": DUMP, "precious": b"precious"}
