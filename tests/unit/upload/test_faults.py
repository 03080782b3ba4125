"""Faults at the seams between our own threads and modules: each costs one dump's turn at the most."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest

from dumpagent.dumps.model import Cause, DumpFacts, DumpFile, Identity, State, Verdict
from dumpagent.dumps.receipt import Receipt
from dumpagent.settings import S3, Place
from dumpagent.upload.daemon import StoreProbing
from dumpagent.upload.ledger import Ledger
from dumpagent.upload.loop import Pass, UploadLoop
from dumpagent.upload.oom_thread import OomThreadSearch
from dumpagent.upload.transfer.uploader import Uploader
from dumpagent.upload.volume.judge import CompletenessJudge, Judge
from tests.harness.stores.memory import MemoryStore
from tests.unit.upload.conftest import PART, Told, Volume, contents


def _loop(
    volume: Volume, store: MemoryStore, told: Told, judge: Judge, *, read_only: bool = False
) -> UploadLoop:
    ledger = Ledger(f"{volume.root}/.dumpagent", store=store.name, read_only=read_only)
    ledger.load()
    return UploadLoop(
        root=str(volume.root), store=store, ledger=ledger,
        uploader=Uploader(store, Place(node_name="n"), part_bytes=PART),
        judge=judge, tell=told, stop=threading.Event(), retention_days=7,
    )  # fmt: skip


class _StumblesOverOne:
    """Judges all dumps but one."""

    def __init__(self) -> None:
        self._judge = CompletenessJudge(quiet_s=0)

    def judge(self, dump: DumpFile) -> Verdict:
        if "bad" in dump.relpath:
            raise ValueError("nobody foresaw this")
        return self._judge.judge(dump)

    def forget(self, dump: DumpFile) -> None:
        self._judge.forget(dump)


def test_a_fault_of_ours_while_judging_one_dump_does_not_stop_the_others(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    for name in ("bad.hprof", "good.hprof"):
        volume.dump(name, name.encode())
    loop = _loop(volume, store, told, _StumblesOverOne())
    assert loop.run_once() == Pass(uploaded=1, waiting=1, failed=1)
    assert set(contents(store)) == {"good.hprof"}
    loop.look()
    (fault,) = told.of("agent_faulty")
    assert (fault["step"], fault["path"]) == ("judge", str(volume.root / "bad.hprof"))


class _ChangesTheDump:
    """Judges a dump that is written to before it is uploaded."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def judge(self, dump: DumpFile) -> Verdict:
        with open(dump.path, "ab") as file:
            file.write(b"more")
        return Verdict(State.COMPLETE, "a test says so", due=True)

    def forget(self, dump: DumpFile) -> None:
        pass


def test_a_dump_that_failed_is_counted_once(volume: Volume, store: MemoryStore, told: Told) -> None:
    volume.dump("a.hprof", b"x")
    assert _loop(volume, store, told, _ChangesTheDump(volume.root)).run_once() == Pass(failed=1)


def test_a_dry_run_leaves_every_file_of_the_state_as_it_is(
    volume: Volume, store: MemoryStore, told: Told
) -> None:
    """It pruned receipts and removed what another agent was just writing."""
    state = volume.root / ".dumpagent"
    ledger = Ledger(str(state), store=store.name)
    ledger.load()
    ledger.record(Receipt(Identity(1, 1, 1), "p", store.name, "k", 1, 1, 1.0, True, gone_since=1.0))
    (state / "receipts" / "a.json.77.tmp").touch()
    volume.dump("a.hprof", b"x")
    before = {path: path.stat().st_mtime_ns for path in volume.root.rglob("*")}
    loop = _loop(volume, store, told, CompletenessJudge(quiet_s=0), read_only=True)
    loop.run_once(dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in volume.root.rglob("*")} == before
    assert told.names() == ["dump_found", "dump_would_upload"]


def test_a_dry_run_makes_no_state_directory(volume: Volume, store: MemoryStore, told: Told) -> None:
    _loop(volume, store, told, CompletenessJudge(quiet_s=0), read_only=True).run_once(dry_run=True)
    assert os.listdir(volume.root) == []


def test_a_process_that_cannot_be_had_for_the_probe_is_told_and_ends_nothing(
    volume: Volume, store: MemoryStore, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = _loop(volume, store, told, CompletenessJudge(quiet_s=0))
    probing = StoreProbing(S3(bucket="b"), loop, told, every_s=0)
    monkeypatch.setattr(sys, "executable", "/nonexistent")
    for _ in range(3):
        probing.step([])
    assert told.names() == ["child_refused"]
    assert probing.fd is None
    monkeypatch.setattr(sys, "executable", "/bin/true")
    probing.step([])
    probing.close()
    assert told.names() == ["child_refused", "child_started"]


def test_a_fault_in_the_search_for_the_thread_costs_its_name_and_no_more(volume: Volume) -> None:
    volume.dump("a.hprof", b"x")

    def find(_dump: object, _keep_on: object) -> str | None:
        raise ValueError("nobody foresaw this")

    verdict = Verdict(State.COMPLETE, "x", due=True, facts=DumpFacts(cause=Cause.OOM))
    search = OomThreadSearch(volume.job("a.hprof").dump, verdict, find=find)
    assert search.name(wait_s=10) is None
    assert isinstance(search.fault, ValueError)
