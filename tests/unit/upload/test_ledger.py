"""The state on disk is a cache: it may vanish, rot or be unwritable, and is believed only where it makes sense."""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpagent.dumps.model import Identity
from dumpagent.dumps.receipt import Receipt, Unfinished
from dumpagent.upload.ledger import AnotherAgent, Ledger

DAY = 86400.0
STORE = "bucket dumps (AWS)"


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def receipt(inode: int = 1, *, store: str = STORE) -> Receipt:
    return Receipt(
        identity=Identity(inode, 100, 5), path="a.hprof", store=store, key="a.hprof", crc32=7, stored_bytes=100,
        uploaded_at=1_000_000.0, verified=True,
    )  # fmt: skip


def opened(directory: Path, clock: Clock | None = None, *, store: str = STORE) -> Ledger:
    ledger = Ledger(str(directory), store=store, now=clock or Clock())
    ledger.load()
    return ledger


def test_what_is_recorded_is_there_after_a_restart(tmp_path: Path) -> None:
    opened(tmp_path).record(receipt())
    assert opened(tmp_path).receipt(Identity(1, 100, 5)) == receipt()


def test_another_inode_size_or_time_is_another_dump(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.record(receipt())
    for other in (Identity(2, 100, 5), Identity(1, 101, 5), Identity(1, 100, 6)):
        assert ledger.receipt(other) is None


def test_a_receipt_counts_for_its_own_store_only(tmp_path: Path) -> None:
    """Who sets another bucket wants the dumps in it."""
    opened(tmp_path).record(receipt())
    assert opened(tmp_path, store="bucket other (AWS)").receipt(Identity(1, 100, 5)) is None
    assert opened(tmp_path).receipt(Identity(1, 100, 5)) is not None


def test_a_receipt_is_dropped_so_long_after_its_dump_left_the_disk_and_not_before(tmp_path: Path) -> None:
    clock = Clock()
    ledger = opened(tmp_path, clock)
    ledger.record(receipt(1))
    ledger.record(receipt(2))
    here = [Identity(2, 100, 5)]
    assert ledger.note_present(here, retention_s=7 * DAY) == []
    clock.now += 6.9 * DAY
    ledger = opened(tmp_path, clock)  # a restart in between changes nothing
    assert ledger.note_present(here, retention_s=7 * DAY) == []
    clock.now += 0.2 * DAY
    assert [dropped.identity.inode for dropped in ledger.note_present(here, retention_s=7 * DAY)] == [1]
    clock.now += 1000 * DAY
    assert ledger.note_present(here, retention_s=7 * DAY) == []
    assert [left.identity.inode for left in opened(tmp_path, clock).receipts()] == [2]


def test_a_dump_that_comes_back_keeps_its_receipt(tmp_path: Path) -> None:
    """A volume that was away for a week has not lost its dumps."""
    clock = Clock()
    ledger = opened(tmp_path, clock)
    ledger.record(receipt())
    ledger.note_present([], retention_s=7 * DAY)
    clock.now += 6 * DAY
    ledger.note_present([Identity(1, 100, 5)], retention_s=7 * DAY)
    clock.now += 6 * DAY
    assert ledger.note_present([], retention_s=7 * DAY) == []
    assert ledger.receipt(Identity(1, 100, 5)) is not None


def test_a_clock_that_is_set_back_drops_nothing_early(tmp_path: Path) -> None:
    clock = Clock()
    ledger = opened(tmp_path, clock)
    ledger.record(receipt())
    clock.now += 1000 * DAY
    ledger.note_present([], retention_s=7 * DAY)
    clock.now -= 1000 * DAY
    assert ledger.note_present([], retention_s=7 * DAY) == []
    clock.now += 6 * DAY
    assert ledger.note_present([], retention_s=7 * DAY) == []


@given(st.binary(max_size=400) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
).map(lambda value: json.dumps({"version": 1, "identity": value, "etags": value, "uploaded_at": value}).encode()))  # fmt: skip
def test_rubbish_in_the_state_directory_is_as_if_it_were_not_there(
    tmp_path_factory: pytest.TempPathFactory, rubbish: bytes
) -> None:
    directory = tmp_path_factory.mktemp("state")
    opened(directory).record(receipt(1))
    for kind in ("receipts", "uploads"):
        (directory / kind / "rubbish.json").write_bytes(rubbish)
    ledger = opened(directory)
    assert ledger.receipts() == [receipt(1)]
    assert ledger.all_unfinished() == []


@pytest.mark.parametrize(
    "field", ["identity", "crc32", "uploaded_at", "gone_since", "key", "verified", "stored_bytes"]
)
@pytest.mark.parametrize("wrong", ["text", [], {}, {"inode": "x", "size_bytes": 1, "mtime_ns": 2}])
def test_a_receipt_with_a_field_of_another_kind_is_no_receipt(
    tmp_path: Path, field: str, wrong: object
) -> None:
    if field == "key" and wrong == "text":
        return
    opened(tmp_path).record(receipt(1))
    (path,) = (tmp_path / "receipts").iterdir()
    path.write_text(json.dumps({**json.loads(path.read_text()), field: wrong}))
    assert opened(tmp_path).receipts() == []


def test_a_state_directory_that_is_cleared_while_the_agent_runs_is_made_again(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "state")
    ledger.record(receipt(1))
    for path in sorted((tmp_path / "state").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (tmp_path / "state").rmdir()
    ledger.record(receipt(2))
    assert [found.identity.inode for found in opened(tmp_path / "state").receipts()] == [2]
    assert ledger.receipt(Identity(1, 100, 5)) is not None


def test_a_state_directory_that_cannot_be_written_is_told_and_remembered_in_memory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    told: list[str] = []
    ledger = Ledger(str(blocked / "state"), store=STORE, unwritable=lambda error: told.append(str(error)))
    ledger.load()
    ledger.lock()
    ledger.record(receipt())
    assert ledger.receipt(Identity(1, 100, 5)) == receipt()
    assert told


def test_one_agent_works_on_a_volume(tmp_path: Path) -> None:
    first, second = opened(tmp_path), opened(tmp_path)
    first.lock()
    with pytest.raises(AnotherAgent, match="another `dumpagent upload` works on this volume"):
        second.lock()
    first.close()
    second.lock()
    second.close()


def test_an_upload_under_way_is_remembered_until_its_receipt(tmp_path: Path) -> None:
    under_way = Unfinished(Identity(1, 100, 5), STORE, "a.hprof", "id", 16, 7, {1: "etag"})
    opened(tmp_path).note_unfinished(under_way)
    ledger = opened(tmp_path)
    assert ledger.unfinished(Identity(1, 100, 5)) == under_way
    ledger.record(receipt(1))
    assert opened(tmp_path).all_unfinished() == []
    assert os.listdir(tmp_path / "uploads") == []


def test_what_a_cut_off_write_left_is_cleared_away(tmp_path: Path) -> None:
    opened(tmp_path)
    (tmp_path / "receipts" / "1-2-3.json.99.tmp").write_text('{"vers')
    assert opened(tmp_path).receipts() == []
    assert os.listdir(tmp_path / "receipts") == []


def test_an_agent_that_waits_removes_nothing_of_the_living_one_and_then_reads_all_that_it_wrote(
    tmp_path: Path,
) -> None:
    """It worked from receipts that it had read before the other one ended, and removed its temporary files."""
    living, waiting = (Ledger(str(tmp_path), store=STORE) for _ in range(2))
    with living.owned():
        being_written = tmp_path / "receipts" / "1-1-1.json.4711.tmp"
        being_written.touch()
        with pytest.raises(AnotherAgent), waiting.owned():
            pass
        assert being_written.exists()
        assert not waiting.is_owned.is_set()
        living.record(receipt())
    with waiting.owned():
        assert waiting.receipt(receipt().identity) == receipt()
        assert not being_written.exists()


def test_receipts_are_pruned_while_an_upload_records_others(tmp_path: Path) -> None:
    """Two threads changed one table: the scan ended with KeyError."""
    ledger = opened(tmp_path)
    for inode in range(300):
        ledger.record(dataclasses.replace(receipt(inode), gone_since=1.0))
    failures: list[BaseException] = []

    def forget() -> None:
        try:
            for inode in reversed(range(300)):
                ledger.forget(receipt(inode).identity)
        except KeyError as error:
            failures.append(error)

    thread = threading.Thread(target=forget)
    thread.start()
    while thread.is_alive():
        ledger.note_present([], retention_s=1e12)
    thread.join()
    assert failures == []
    assert ledger.receipts() == []


def test_a_file_of_another_user_with_the_inode_size_and_time_of_a_stored_one_is_no_stored_dump(
    tmp_path: Path,
) -> None:
    """Inodes are used again, and anybody can give his own file any time: the receipt said that the dump was stored."""
    ledger = opened(tmp_path)
    mine = Identity(1, 100, 5, uid=10001)
    ledger.record(dataclasses.replace(receipt(), identity=mine))
    assert ledger.receipt(mine) is not None
    assert ledger.receipt(Identity(1, 100, 5, uid=10002)) is None
    again = opened(tmp_path)
    assert again.receipt(mine) is not None
    assert again.receipt(Identity(1, 100, 5, uid=10002)) is None
