"""A volume that goes away takes its dumps along, and brings them back: none of them is lost."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumpagent.settings import Place
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import UploadLoop
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.judge import CompletenessJudge
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, Told


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """Give a directory on another file system than that of tmp_path."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:
        yield Path(path)


def _point(root: Path, to: Path) -> None:
    root.unlink(missing_ok=True)
    root.symlink_to(to)


def _loop(root: Path, state: Path, store: MemoryStore, told: Told) -> UploadLoop:
    ledger = Ledger(str(state), store=store.name)
    ledger.load()
    return UploadLoop(
        root=str(root), store=store, ledger=ledger, uploader=Uploader(store, Place(node_name="n"), part_bytes=PART),
        judge=CompletenessJudge(quiet_s=3600), tell=told, stop=threading.Event(), retention_days=0,
    )  # fmt: skip


def test_a_volume_that_goes_away_and_comes_back_loses_no_dump(
    tmp_path: Path, elsewhere: Path, store: MemoryStore, told: Told
) -> None:
    """The node's own directory was taken for an empty volume: each pending dump was called lost."""
    root, node = tmp_path / "dump", tmp_path / "node"
    node.mkdir()
    (node / "stray.hprof").write_bytes(b"x")
    (elsewhere / "a.hprof").write_bytes(b"a")
    if os.stat(elsewhere).st_dev == os.stat(tmp_path).st_dev:
        pytest.fail("/dev/shm and the tests' directory must be two file systems")
    _point(root, elsewhere)
    loop = _loop(root, tmp_path / "state", store, told)
    loop.look()
    before = loop.counts
    assert (before.seen, before.pending) == (1, 1)
    told.events.clear()
    _point(root, node)
    for _ in range(3):
        loop.look()
        loop.look_again()
        loop.look_at(["stray.hprof"])
    assert told.names() == ["volume_away"]
    assert loop.root_incident
    assert (loop.counts.seen, loop.counts.failed, loop.counts.pending) == (1, 0, 1)
    _point(root, elsewhere)
    loop.look()
    assert told.names() == ["volume_away", "volume_back"]
    assert (loop.counts.seen, loop.counts.failed, loop.counts.pending) == (1, 0, 1)
    assert loop.root_incident is None


def test_another_volume_says_nothing_about_the_dumps_of_the_first(
    tmp_path: Path, store: MemoryStore, told: Told
) -> None:
    root, first, second = (tmp_path / name for name in ("dump", "first", "second"))
    for volume, name in ((first, "a.hprof"), (second, "b.hprof")):
        volume.mkdir()
        (volume / name).write_bytes(b"x")
    _point(root, first)
    loop = _loop(root, tmp_path / "state", store, told)
    loop.look()
    _point(root, second)
    loop.look()
    _point(root, first)
    loop.look()
    assert told.names() == ["dump_found", "dump_found"]
    assert (loop.counts.seen, loop.counts.failed, loop.counts.pending) == (2, 0, 2)
