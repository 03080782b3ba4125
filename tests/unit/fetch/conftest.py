"""A bucket in memory with dumps in it, labelled as the agent labels them."""

from __future__ import annotations

import datetime as dt
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dumpagent.fetch.download import Fetch, Fetched, fetch
from dumpagent.fetch.stored import StoredDump
from dumpagent.store.protocol import Body, Store
from tests.harness.hprof import Maker
from tests.harness.stores.memory import MemoryStore

DUMP = Maker().dump(segments=40, segment_bytes=3000)
NOON = 1_767_268_800


def iso(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Bucket:
    """A store with ways to fill it."""

    store: MemoryStore = field(default_factory=MemoryStore)

    def put(
        self, key: str, content: bytes = DUMP, *, labels: dict[str, str] | None = None, **more: str
    ) -> StoredDump:
        """Store `content` as the agent does, with other `labels`; a label of "" is left out."""
        found = {
            "node": "worker-1",
            "dump-time": iso(NOON),
            "verdict": "complete",
            "cause": "oom",
            "original-path": key,
            "original-size": str(len(content)),
            "crc32": f"{zlib.crc32(content):08x}",
        }
        found |= {name.replace("_", "-"): value for name, value in {**(labels or {}), **more}.items()}
        return self.put_bare(key, content, {name: value for name, value in found.items() if value})

    def put_packed(self, key: str, packed: bytes, content: bytes = DUMP) -> StoredDump:
        """Store what the agent compressed on its way: the checksum is that of the uncompressed dump."""
        return self.put(key, packed, crc32=f"{zlib.crc32(content):08x}", original_size=str(len(content)))

    def put_bare(self, key: str, content: bytes, labels: dict[str, str] | None = None) -> StoredDump:
        self.store.delete(key)
        self.store.put(key, Body(content, zlib.crc32(content)), labels or {})
        found = self.store.look(key)
        assert found is not None
        return StoredDump(found, key)


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@dataclass
class Getter:
    """`dumpagent get` without its command line: `notes` are what it told, `pauses` what it slept."""

    folder: Path
    notes: list[str] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def get(
        self,
        store: Store,
        dump: StoredDump,
        name: str = "x.hprof",
        *,
        force: bool = False,
        gunzip: bool = False,
    ) -> Fetched:
        wish = Fetch(dump, str(self.folder / name), force=force, gunzip=gunzip)
        return fetch(store, wish, bar=_no_bar, note=self.notes.append, pause=self.pauses.append)

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    def part(self, dump: StoredDump, name: str = "x.hprof") -> Path:
        return Path(Fetch(dump, str(self.folder / name)).part_path)


def _no_bar(_title: str, _total: int, _done: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda _bytes: None)


@pytest.fixture
def getter(tmp_path: Path) -> Getter:
    return Getter(tmp_path)
