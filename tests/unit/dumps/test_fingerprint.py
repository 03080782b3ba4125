"""A fingerprint tells which bytes a dump holds, and a file that is no longer those bytes is not uploaded."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpagent.dumps.fingerprint import take_fingerprint
from dumpagent.dumps.source import (
    FileSpan,
    SourceChanged,
    Stopped,
    confirm_unchanged,
    open_dump,
    read_span,
)
from tests.unit.upload.conftest import Volume


@given(st.binary(max_size=5000), st.integers(1, 700))
def test_whole_and_parts_sum_to_what_zlib_says(content: bytes, block: int) -> None:
    fd = os.memfd_create("dump")
    try:
        os.write(fd, content)
        found = take_fingerprint(fd, len(content), block_bytes=block)
        assert found.crc32 == zlib.crc32(content)
        for blocks in (1, 2, 3):
            for start in range(0, len(content), blocks * block):
                length = min(blocks * block, len(content) - start)
                assert found.crc32_of(start, length) == zlib.crc32(content[start : start + length])
    finally:
        os.close(fd)


def test_a_file_that_is_cut_while_it_is_read_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.hprof"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file:
        with pytest.raises(SourceChanged):
            take_fingerprint(file.fileno(), 101, block_bytes=16)
        with pytest.raises(SourceChanged):
            read_span(file.fileno(), 90, 11)


def test_reading_ends_when_the_agent_does(tmp_path: Path) -> None:
    path = tmp_path / "x.hprof"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file, pytest.raises(Stopped):
        take_fingerprint(file.fileno(), 100, block_bytes=16, stopped=lambda: True)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path)


def test_another_file_under_the_name_is_not_opened(volume: Volume) -> None:
    volume.dump("x.hprof", b"first")
    job = volume.job("x.hprof")
    os.unlink(volume.root / "x.hprof")
    volume.dump("x.hprof", b"other")
    with pytest.raises(SourceChanged):
        os.close(open_dump(job.dump))


def test_a_link_or_a_fifo_under_the_name_is_not_followed_and_does_not_hang(
    volume: Volume, tmp_path: Path
) -> None:
    volume.dump("x.hprof", b"first")
    job = volume.job("x.hprof")
    os.unlink(volume.root / "x.hprof")
    os.mkfifo(volume.root / "x.hprof")
    with pytest.raises(OSError, match="not a regular file"):
        os.close(open_dump(job.dump))
    os.unlink(volume.root / "x.hprof")
    os.symlink("/etc/passwd", volume.root / "x.hprof")
    with pytest.raises(OSError, match="not a regular file"):
        os.close(open_dump(job.dump))


def test_a_write_during_the_upload_is_noticed(volume: Volume) -> None:
    volume.dump("x.hprof", b"first")
    job = volume.job("x.hprof")
    fd = open_dump(job.dump)
    try:
        confirm_unchanged(fd, job.dump.identity)
        volume.dump("x.hprof", b"other")
        with pytest.raises(SourceChanged):
            confirm_unchanged(fd, job.dump.identity)
    finally:
        os.close(fd)


def test_a_span_reads_its_own_bytes_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "x.hprof"
    path.write_bytes(bytes(range(200)))
    wanted = bytes(range(50, 150))
    with path.open("rb") as file:
        span = FileSpan(file.fileno(), 50, 100, zlib.crc32(wanted), read_bytes=7)
        for _ in range(2):
            assert b"".join(map(bytes, iter(lambda: span.read(1), b""))) == wanted
            assert span.seek(0) == 0
        assert len(span) == 100
        span.seek(40)
        assert span.read(1) == wanted[40:47]
        span.seek(0)
        assert span.read() == wanted


def test_a_span_with_other_bytes_than_the_fingerprint_is_told_before_it_is_sent_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.hprof"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file:
        span = FileSpan(file.fileno(), 0, 100, zlib.crc32(b"y" * 100), read_bytes=99)
        span.read(1)
        with pytest.raises(SourceChanged) as raised:
            span.read(1)
        assert span.failure is raised.value


def test_a_file_whose_reading_was_stopped_is_read_on_from_there(tmp_path: Path) -> None:
    content = os.urandom(100 * 1024)
    (tmp_path / "x").write_bytes(content)
    fd = os.open(tmp_path / "x", os.O_RDONLY)
    blocks: list[int] = []
    asked = iter([False] * 60 + [True])
    with pytest.raises(Stopped):
        take_fingerprint(fd, len(content), block_bytes=1024, stopped=lambda: next(asked), blocks=blocks)
    assert len(blocks) == 60
    left = iter([False] * 40)
    found = take_fingerprint(fd, len(content), block_bytes=1024, stopped=lambda: next(left), blocks=blocks)
    os.close(fd)
    assert found.crc32 == zlib.crc32(content)
    assert found.crc32_of(10 * 1024, 70 * 1024) == zlib.crc32(content[10 * 1024 : 80 * 1024])
