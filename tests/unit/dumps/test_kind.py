"""A file is what its first bytes say: HeapDumpPath may be any name, and not every JVM is HotSpot."""

from __future__ import annotations

import functools
import gzip
import os

import pytest

from dumpagent.dumps.kind import HEAD_BYTES, PACKED_HEAD_BYTES, FileKind, kind_of, packed_kind
from tests.harness.hprof import Maker, members

DUMP = Maker().dump()
PHD = b"\x00\x12portable heap dump\x00\x00\x00\x06" + bytes(100)
CORE = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00\x3e\x00" + bytes(100)


packed = functools.partial(gzip.compress, mtime=0)


def of(content: bytes) -> FileKind:
    return kind_of(content[:HEAD_BYTES]) or packed_kind(content[:PACKED_HEAD_BYTES])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (DUMP, FileKind.HPROF),
        (b"JAVA PROFILE 1.0.1\0" + bytes(40), FileKind.HPROF),
        (b"JAVA PROFILE 1.0.3\0" + bytes(40), FileKind.HPROF),  # Android
        (members(DUMP), FileKind.HPROF),
        (packed(DUMP), FileKind.HPROF),
        (PHD, FileKind.PHD),
        (packed(PHD), FileKind.PHD),
        (CORE, FileKind.CORE),
        (b"0SECTION       TITLE subcomponent dump routine\nNULL", FileKind.JAVACORE),
        (b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + bytes(100), FileKind.OTHER),  # a program
        (b"", FileKind.UNDECIDED),
        (b"JAVA PROF", FileKind.UNDECIDED),
        (b"\x1f", FileKind.UNDECIDED),
        (packed(DUMP)[:12], FileKind.UNDECIDED),
        (b"JAVA PROFILER", FileKind.OTHER),
        (b"2026-01-01 12:00:00 started", FileKind.OTHER),
        (b"\x1f\x8b\x08 and no gzip at all, only its first bytes", FileKind.OTHER),
        (packed(b"a log that was rotated" * 1000), FileKind.OTHER),
        (packed(packed(DUMP)), FileKind.OTHER),
    ],
    ids=map(str, range(19)),
)
def test_a_file_is_what_its_first_bytes_say(content: bytes, kind: FileKind) -> None:
    assert of(content) is kind


def test_what_is_written_byte_by_byte_is_undecided_until_it_is_a_dump() -> None:
    kinds = [of(DUMP[:length]) for length in range(40)]
    assert kinds == [FileKind.UNDECIDED] * 17 + [FileKind.HPROF] * 23


def test_a_gzip_file_that_does_not_begin_within_its_first_bytes_is_not_asked_for_ever() -> None:
    endless_name = b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * PACKED_HEAD_BYTES
    assert of(endless_name) is FileKind.OTHER
    assert of(os.urandom(64)[:1] + b"?" * 63) in (FileKind.OTHER, FileKind.UNDECIDED)
