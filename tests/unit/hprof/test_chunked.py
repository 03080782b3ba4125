"""What the agent compresses is gzip to everybody, and has the form that Eclipse MAT jumps around in."""

from __future__ import annotations

import gzip
import io
import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpagent.hprof.chunked import BLOCK_BYTES, announced_block_bytes, is_gzip, pack, rechunk
from tests.harness.jvm import Jdk

UNPACK_JAR = Path(__file__).parents[2] / "harness" / "java" / "unpack.jar"


def sample(size_bytes: int) -> bytes:
    """Bytes as in a heap: runs of zeros, text, and some that do not compress."""
    rng = random.Random(size_bytes)
    pieces = (
        lambda: bytes(rng.randrange(1, 4000)),
        lambda: b"order customer " * rng.randrange(1, 90),
        lambda: rng.randbytes(700),
    )
    made = b""
    while len(made) < size_bytes:
        made += rng.choice(pieces)()
    return made[:size_bytes]


def packed(content: bytes, block_bytes: int = BLOCK_BYTES) -> bytes:
    starts = range(0, len(content), block_bytes)
    return b"".join(
        pack(content[start : start + block_bytes], first=start == 0, block_bytes=block_bytes).packed
        for start in starts
    )


def members(file: bytes) -> list[tuple[bytes, bytes]]:
    """Take a gzip file apart by hand: each member's bytes before its deflate data, and what it unpacks to."""
    found = []
    while file:
        assert file[:3] == b"\x1f\x8b\x08"
        end = 10 if file[3] == 0 else file.index(b"\0", 10) + 1
        inflate = zlib.decompressobj(-15)
        content = inflate.decompress(file[end:])
        assert inflate.eof
        crc32, length = struct.unpack("<II", inflate.unused_data[:8])
        assert (crc32, length) == (zlib.crc32(content), len(content))
        found.append((file[:end], content))
        file = inflate.unused_data[8:]
    return found


def test_the_first_member_announces_the_block_size_byte_for_byte_as_hotspot_does() -> None:
    head, _ = members(packed(b"JAVA PROFILE 1.0.2\0"))[0]
    assert head == b"\x1f\x8b\x08\x10\x00\x00\x00\x00\x04\x00" + b"HPROF BLOCKSIZE=131072\x00"


@given(st.integers(1, 40), st.integers(1, 300))
def test_every_member_holds_exactly_one_block_and_none_is_empty(block_bytes: int, size_bytes: int) -> None:
    """A larger member makes MAT loop for ever, an empty one makes it stop silently."""
    content = sample(size_bytes)
    found = members(packed(content, block_bytes))
    assert b"".join(block for _, block in found) == content
    assert {len(block) for _, block in found[:-1]} <= {block_bytes}
    assert 0 < len(found[-1][1]) <= block_bytes
    assert all(head == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\x00" for head, _ in found[1:])


@pytest.mark.parametrize("size", [0, BLOCK_BYTES + 1])
def test_no_empty_and_no_too_large_member_can_be_made(size: int) -> None:
    with pytest.raises(ValueError, match="a block has"):
        pack(bytes(size), first=False)


@pytest.mark.parametrize(
    "size_bytes", [1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES + 7]
)
def test_gunzip_and_python_unpack_it(tmp_path: Path, size_bytes: int) -> None:
    content = sample(size_bytes)
    path = tmp_path / "x.hprof.gz"
    path.write_bytes(packed(content))
    subprocess.run(["gzip", "--test", str(path)], check=True)
    assert gzip.decompress(path.read_bytes()) == content


@pytest.mark.slow
def test_java_unpacks_it(tmp_path: Path, every_jdk: Jdk) -> None:
    content = sample(3 * BLOCK_BYTES + 11)
    path = tmp_path / "x.hprof.gz"
    path.write_bytes(packed(content))
    argv = [str(every_jdk.java), "-Xmx32m", "-cp", str(UNPACK_JAR), "Unpack", str(path)]
    told = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()
    assert [int(word) for word in told] == [len(content), zlib.crc32(content)]


def test_the_crc32_of_the_unpacked_bytes_comes_with_each_member() -> None:
    assert pack(b"heap", first=False).crc32 == zlib.crc32(b"heap")


def test_the_announced_block_size_is_read_back() -> None:
    assert announced_block_bytes(packed(b"x" * 100)[:64]) == BLOCK_BYTES
    assert (
        announced_block_bytes(b"\x1f\x8b\x08\x10\0\0\0\0\x04\0HPROF BLOCKSIZE=65536 made by hand\0rest")
        == 65536
    )


@pytest.mark.parametrize(
    "head",
    [
        gzip.compress(b"JAVA PROFILE 1.0.2\0", mtime=0),
        b"\x1f\x8b\x08\x10\0\0\0\0\x04\0some other comment\0rest",
        b"\x1f\x8b\x08\x10\0\0\0\0\x04\0HPROF BLOCKSIZE=131",
        b"\x1f\x8b\x08\x10\0\0\0\0\x04\0HPROF BLOCKSIZE=much\0",
        b"JAVA PROFILE 1.0.2\0",
        b"",
    ],
    ids=["gzip", "another comment", "cut", "no number", "plain", "empty"],
)
def test_without_the_comment_in_the_first_member_nothing_is_announced(head: bytes) -> None:
    assert announced_block_bytes(head) is None


def test_gzip_is_told_from_a_plain_dump() -> None:
    assert is_gzip(gzip.compress(b"x"))
    assert not is_gzip(b"JAVA PROFILE 1.0.2\0")


def test_a_jvms_gzip_file_is_rechunked_with_the_same_content() -> None:
    """JDK 25 puts the comment into the second member; gzip(1) makes one large member."""
    content = sample(4 * BLOCK_BYTES + 5)
    as_jdk_25 = gzip.compress(content[:1000]) + packed(content[1000:])
    for source in (as_jdk_25, gzip.compress(content)):
        again = b"".join(member.packed for member in rechunk(io.BytesIO(source)))
        assert again == packed(content)


def test_a_cut_gzip_file_is_not_rechunked_to_something_that_looks_whole() -> None:
    with pytest.raises(EOFError):
        list(rechunk(io.BytesIO(gzip.compress(sample(BLOCK_BYTES * 3))[:-100])))
