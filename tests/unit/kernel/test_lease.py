"""The writer test: a dump is not touched while any process has it open for writing."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dumpagent.kernel.lease import (
    WriterState,
    lease_stands,
    release_lease,
    take_read_lease,
    writer_state,
)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "java_pid1.hprof"
    path.write_bytes(b"x" * 10000)
    return path


def test_a_file_that_nobody_has_open_has_no_writer(dump: Path) -> None:
    with opened(dump) as fd:
        assert writer_state(fd) is WriterState.NO_WRITER
        assert writer_state(fd) is WriterState.NO_WRITER, "asking twice is allowed"


def test_readers_are_not_writers(dump: Path) -> None:
    with opened(dump), opened(dump) as fd:
        assert writer_state(fd) is WriterState.NO_WRITER


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_an_open_writer_is_seen_until_it_closes(dump: Path, flags: int) -> None:
    with opened(dump) as fd:
        with opened(dump, flags):
            assert writer_state(fd) is WriterState.WRITER
        assert writer_state(fd) is WriterState.NO_WRITER


def test_a_writer_in_another_process_is_seen_and_its_death_too(dump: Path) -> None:
    words = "import os, sys; os.open(sys.argv[1], os.O_WRONLY); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", words, dump], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout
        writer.stdout.readline()
        with opened(dump) as fd:
            assert writer_state(fd) is WriterState.WRITER
            writer.kill()
            writer.wait()
            assert writer_state(fd) is WriterState.NO_WRITER


def test_a_shared_writable_mapping_counts_as_a_writer(dump: Path) -> None:
    with opened(dump) as fd:
        with opened(dump, os.O_RDWR) as writing:
            mapped = mmap.mmap(writing, 4096)
        assert writer_state(fd) is WriterState.WRITER
        mapped.close()
        assert writer_state(fd) is WriterState.NO_WRITER


def test_what_has_no_leases_is_unknown_not_free(tmp_path: Path) -> None:
    """Directories and pipes cannot be leased."""
    with opened(tmp_path) as fd:
        assert writer_state(fd) is WriterState.UNKNOWN
    reading, writing = os.pipe()
    assert writer_state(reading) is WriterState.UNKNOWN
    os.close(reading)
    os.close(writing)
    assert writer_state(writing) is WriterState.UNKNOWN, "a closed descriptor"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to drop capabilities")
def test_somebody_elses_file_without_the_capability_is_unknown(dump: Path) -> None:
    source = Path(sys.modules[writer_state.__module__].__file__ or "").read_text()
    words = (
        f"{source}\nimport sys\nfd = os.open(sys.argv[1], os.O_RDONLY); os.setgroups([]); os.setuid(65534)\n"
        "print(writer_state(fd).value)"
    )
    said = subprocess.run(
        [sys.executable, "-I", "-S", "-c", words, dump], capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == "unknown"


def test_a_held_lease_makes_a_new_writer_wait_and_tells_of_it(dump: Path) -> None:
    """Who opens for writing meanwhile is neither refused nor lost, and we survive the kernel's signal."""
    with opened(dump) as fd:
        assert take_read_lease(fd) is WriterState.NO_WRITER
        assert lease_stands(fd)
        came_in = threading.Event()

        def write() -> None:
            with opened(dump, os.O_WRONLY):
                came_in.set()

        writer = threading.Thread(target=write)
        writer.start()
        while lease_stands(fd):
            assert not came_in.is_set()
        assert not came_in.is_set()
        release_lease(fd)
        writer.join(10)
        assert came_in.is_set()
        release_lease(fd)
