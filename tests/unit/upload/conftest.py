"""Small volumes and the agent's pieces over a store in memory, with multipart from 1 KiB on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dumpagent.dumps.model import DumpFacts, State, Verdict
from dumpagent.dumps.receipt import Receipt
from dumpagent.observe.events import Event
from dumpagent.part_sizes import Limits
from dumpagent.settings import Place
from dumpagent.store.protocol import Store
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.transfer.job import Job
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.scan import scan
from tests.harness.stores.memory import MemoryStore

PART = 1024
DUMP_TIME_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
SMALL_LIMITS = Limits(parts=10_000, part_min_bytes=1, part_max_bytes=1 << 20, object_max_bytes=1 << 30)


@dataclass
class Told:
    """A listener that keeps what it was told, as a person reads it: without debug events."""

    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)

    def __call__(self, event: Event, /) -> None:
        if event.level != "debug":
            self.events.append((event.name, event.fields()))

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def of(self, name: str) -> list[dict[str, object]]:
        return [fields for told, fields in self.events if told == name]


@dataclass
class Volume:
    """A dump directory."""

    root: Path

    def dump(self, relpath: str, content: bytes) -> str:
        path = self.root / relpath
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return relpath

    def job(self, relpath: str, *, dump_time_ms: int | None = DUMP_TIME_MS) -> Job:
        dump = next(found for found in scan(str(self.root)).dumps if found.relpath == relpath)
        verdict = Verdict(
            State.COMPLETE, "a test says so", due=True, facts=DumpFacts(dump_time_ms=dump_time_ms)
        )
        return Job(dump, verdict)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    root = tmp_path / "dump"
    root.mkdir()
    return Volume(root)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore(limits=SMALL_LIMITS)


@pytest.fixture
def told() -> Told:
    return Told()


@dataclass
class Agent:
    """An uploader with its ledger, as the worker uses them."""

    uploader: Uploader
    ledger: Ledger

    def upload(self, job: Job) -> Receipt:
        receipt = self.uploader.upload(job, self.ledger)
        self.ledger.record(receipt)
        return receipt


AgentFor = Callable[..., Agent]


@pytest.fixture
def agent_on(volume: Volume) -> AgentFor:
    """Give the maker of an agent on a node: a fresh process each time, with the state directory of that name."""

    def make(store: Store, *, node: str = "node-a", state: str = ".dumpagent") -> Agent:
        ledger = Ledger(str(volume.root / state), store=store.name)
        ledger.load()
        return Agent(Uploader(store, Place(node_name=node, pod_name="agent-0"), part_bytes=PART), ledger)

    return make


def contents(store: Store, prefix: str = "") -> dict[str, bytes]:
    """Give all that the bucket holds."""
    return {found.key: b"".join(store.read(found.key)) for found in store.objects(prefix)}


def some_bytes(size: int) -> bytes:
    return os.urandom(size)
