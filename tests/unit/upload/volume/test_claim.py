"""Claiming: a finished dump gets its own name, nothing is ever replaced, and nothing that is written is touched."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from dumpagent.dumps.files import segment_files_of
from dumpagent.dumps.model import DumpFacts, DumpFile, Identity
from dumpagent.kernel.lease import WriterState
from dumpagent.kernel.rename import rename_in
from dumpagent.upload.volume.claim import CannotClaim, StillWritten, claim
from tests.harness.hprof import NOON_MS

FACTS = DumpFacts(dump_time_ms=NOON_MS)


def dump_at(path: Path, root: Path) -> DumpFile:
    status = path.stat()
    identity = Identity.of(status)
    return DumpFile(str(root), str(path.relative_to(root)), identity, status.st_dev, status.st_uid)


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    (tmp_path / "app").mkdir()
    path = tmp_path / "app" / "java_pid1.hprof"
    path.write_bytes(b"dump")
    return path


def names_beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_claimed_dump_carries_its_time_and_stays_the_same_file(stub: Path, tmp_path: Path) -> None:
    dump = dump_at(stub, tmp_path)
    claimed = claim(dump, FACTS)
    assert claimed.relpath == "app/java_pid1.20260101T120000Z.hprof"
    assert claimed.identity == dump.identity
    assert names_beside(stub) == ["java_pid1.20260101T120000Z.hprof"]
    assert claim(claimed, FACTS) == claimed


@pytest.mark.parametrize(
    "facts", [None, DumpFacts(), DumpFacts(dump_time_ms=1 << 63), DumpFacts(dump_time_ms=0)]
)
def test_a_dump_without_a_time_of_its_own_gets_that_of_its_last_change(
    stub: Path, tmp_path: Path, facts: DumpFacts | None
) -> None:
    os.utime(stub, (NOON_MS / 1000, NOON_MS / 1000))
    claimed = claim(dump_at(stub, tmp_path), facts)
    assert claimed.relpath == "app/java_pid1.20260101T120000Z.hprof"
    assert claim(claimed, facts) == claimed


def test_dumps_of_the_same_second_all_keep_their_bytes(stub: Path, tmp_path: Path) -> None:
    for content in (b"one", b"two", b"three"):
        stub.write_bytes(content)
        claim(dump_at(stub, tmp_path), FACTS)
    stem = stub.parent / "java_pid1.20260101T120000Z"
    assert Path(f"{stem}.hprof").read_bytes() == b"one"
    assert Path(f"{stem}-2.hprof").read_bytes() == b"two"
    assert Path(f"{stem}-3.hprof").read_bytes() == b"three"


def test_a_dump_that_somebody_writes_is_left_alone(stub: Path, tmp_path: Path) -> None:
    dump = dump_at(stub, tmp_path)
    with stub.open("ab"), pytest.raises(StillWritten):
        claim(dump, FACTS)
    assert names_beside(stub) == ["java_pid1.hprof"]


def test_a_dump_that_is_not_the_one_that_was_judged_is_left_alone(stub: Path, tmp_path: Path) -> None:
    dump = dump_at(stub, tmp_path)
    stub.write_bytes(b"another dump")
    with pytest.raises(FileNotFoundError):
        claim(dump, FACTS)
    assert names_beside(stub) == ["java_pid1.hprof"]


def test_orphaned_parts_go_with_their_stub_so_that_the_next_dump_finds_every_name_free(
    stub: Path, tmp_path: Path
) -> None:
    for number in (0, 1, 10):
        Path(f"{stub}.p{number}").write_bytes(b"%d" % number)
    claimed = claim(dump_at(stub, tmp_path), FACTS)
    stem = "java_pid1.20260101T120000Z.hprof"
    assert names_beside(stub) == [stem, f"{stem}.p0", f"{stem}.p1", f"{stem}.p10"]
    assert [part.relpath for part in segment_files_of(claimed)] == [f"app/{stem}.p{n}" for n in (0, 1, 10)]


def test_a_part_that_somebody_writes_keeps_everything_in_place(stub: Path, tmp_path: Path) -> None:
    part = Path(f"{stub}.p0")
    with part.open("wb"), pytest.raises(StillWritten):
        claim(dump_at(stub, tmp_path), FACTS)
    assert names_beside(stub) == ["java_pid1.hprof", "java_pid1.hprof.p0"]


def test_without_the_kernels_word_parts_are_not_taken_from_a_jvm_that_may_live(
    stub: Path, tmp_path: Path
) -> None:
    Path(f"{stub}.p0").write_bytes(b"0")
    claim(dump_at(stub, tmp_path), FACTS, take_lease=lambda _fd: WriterState.UNKNOWN)
    assert names_beside(stub) == ["java_pid1.20260101T120000Z.hprof", "java_pid1.hprof.p0"]


def test_what_cannot_be_renamed_whole_is_put_back(stub: Path, tmp_path: Path) -> None:
    Path(f"{stub}.p0").write_bytes(b"0")

    def refuse_the_stub(directory: int, old: str, new: str) -> None:
        if old == stub.name:
            raise PermissionError(errno.EPERM, "Operation not permitted", old)
        rename_in(directory, old, new)

    with pytest.raises(CannotClaim) as refused:
        claim(dump_at(stub, tmp_path), FACTS, rename=refuse_the_stub)
    assert "DAC_OVERRIDE" in refused.value.hint
    assert names_beside(stub) == ["java_pid1.hprof", "java_pid1.hprof.p0"]


def test_a_crash_between_part_and_stub_is_mended_by_the_next_claim(stub: Path, tmp_path: Path) -> None:
    claimed_part = stub.parent / "java_pid1.20260101T120000Z.hprof.p0"
    claimed_part.write_bytes(b"0")
    claimed = claim(dump_at(stub, tmp_path), FACTS)
    assert [part.path for part in segment_files_of(claimed)] == [str(claimed_part)]


def test_a_name_without_room_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 245 + ".hprof")
    path.write_bytes(b"dump")
    with pytest.raises(CannotClaim) as refused:
        claim(dump_at(path, tmp_path), FACTS)
    assert "HeapDumpPath" in refused.value.hint


def test_a_dump_in_the_root_itself_is_claimed_too(tmp_path: Path) -> None:
    path = tmp_path / "java_pid1.hprof.1"
    path.write_bytes(b"dump")
    assert claim(dump_at(path, tmp_path), FACTS).relpath == "java_pid1.20260101T120000Z.hprof.1"
