"""A dump in the store is inspected as a file is, and comes over the network about once."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumpagent.cli.commands.inspect import _inspect as inspect_source
from dumpagent.cli.commands.inspect import inspect
from dumpagent.fetch.remote import RemoteFile
from dumpagent.kernel.lease import WriterState
from tests.harness.hprof import Maker, members
from tests.harness.stores.memory import MemoryStore
from tests.unit.fetch.conftest import Bucket

DUMP = Maker().dump(segments=40, segment_bytes=900_000)


class Counting(MemoryStore):
    """Counts the bytes that are read, and the requests."""

    def __init__(self, behind: MemoryStore) -> None:
        self.__dict__.update(behind.__dict__)
        self.read_bytes = self.requests = 0

    def read(
        self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> Iterator[bytes]:
        self.requests += 1
        content = b"".join(super().read(key, start=start, length=length, etag=etag))
        for at in range(0, len(content), 64 << 10):
            self.read_bytes += len(content[at : at + (64 << 10)])
            yield content[at : at + (64 << 10)]


@pytest.mark.parametrize(
    "content",
    [
        DUMP,
        members(DUMP, 1 << 20),
        DUMP[: len(DUMP) // 2],
        members(DUMP, 1 << 20)[:-500_000],
        b"no dump" * 99,
        b"",
    ],
    ids=["plain", "packed", "cut", "packed and cut", "foreign", "empty"],
)
def test_a_dump_in_the_store_is_inspected_as_a_file_is(
    bucket: Bucket, content: bytes, tmp_path: Path
) -> None:
    (tmp_path / "x.hprof").write_bytes(content)
    here = inspect(str(tmp_path / "x.hprof"), classes=5, quick=False)
    store = Counting(bucket.store)
    remote = RemoteFile(store, bucket.put("x.hprof", content).stored, pause=lambda _s: None)
    there = inspect_source(remote, "x.hprof", len(content), WriterState.NO_WRITER, 5, False, streamed=True)
    assert dataclasses.replace(there, path=here.path) == here
    assert store.read_bytes <= 1.5 * len(content) + (8 << 20), "its bytes come once, and the ends of it again"
    assert store.requests < 20


def test_bytes_at_any_offset_are_the_objects_own(bucket: Bucket) -> None:
    chance = random.Random(1)
    content = chance.randbytes(6 << 20)
    store = Counting(bucket.store)
    remote = RemoteFile(store, bucket.put("x", content).stored, pause=lambda _s: None)
    for _ in range(200):
        offset = chance.randrange(len(content) + 10)
        size = chance.choice([1, 100, 70_000])
        assert remote.read_at(offset, size) == content[offset : offset + size]
