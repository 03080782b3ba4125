"""Streams: any chunking of the same bytes gives the same answers."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpagent.fetch.stream import Damaged, Forwards, Summed, unpack
from dumpagent.hprof.source import InMemory
from dumpagent.hprof.walk import Walk
from tests.harness.hprof import Maker, members


def chunked(content: bytes, sizes: list[int]) -> list[bytes]:
    chunks, at = [], 0
    for size in sizes:
        chunks.append(content[at : at + size])
        at += size
    return [chunk for chunk in [*chunks, content[at:]] if chunk]


@given(st.binary(max_size=300), st.lists(st.integers(1, 50), max_size=20), st.data())
def test_reading_forwards_gives_what_reading_anywhere_would(
    content: bytes, sizes: list[int], data: st.DataObject
) -> None:
    stream, memory, offset = Forwards(chunked(content, sizes)), InMemory(content), 0
    for _ in range(8):
        offset += data.draw(st.integers(0, 60))
        size = data.draw(st.integers(0, 80))
        assert stream.read_at(offset, size) == memory.read_at(offset, size)


@given(st.integers(0, 700), st.lists(st.integers(1, 200), max_size=20))
def test_a_walk_over_a_stream_finds_what_a_walk_over_the_file_does(cut: int, sizes: list[int]) -> None:
    content = Maker().dump()[: cut or None]
    assert Walk().advance(Forwards(chunked(content, sizes))) == Walk().advance(InMemory(content))


@given(st.binary(max_size=3000), st.integers(1, 500), st.lists(st.integers(1, 90), max_size=30))
def test_any_members_in_any_chunks_unpack_to_what_was_packed(
    content: bytes, block_bytes: int, sizes: list[int]
) -> None:
    assert b"".join(unpack(chunked(members(content, block_bytes), sizes))) == content


def test_a_member_that_unpacks_to_a_thousand_times_its_size_comes_in_pieces() -> None:
    pieces = list(unpack([gzip.compress(bytes(10 << 20))]))
    assert max(map(len, pieces)) <= 1 << 20
    assert sum(map(len, pieces)) == 10 << 20


@pytest.mark.parametrize("cut", [1, 5, 12, 30])
def test_packed_bytes_that_end_inside_a_member_are_damage(cut: int) -> None:
    with pytest.raises(Damaged):
        list(unpack([gzip.compress(b"some content that is long enough")[:-cut]]))


def test_packed_bytes_followed_by_something_else_are_damage() -> None:
    with pytest.raises(Damaged):
        list(unpack([gzip.compress(b"x"), b"not a member"]))


def test_a_sum_is_of_what_has_passed() -> None:
    summed = Summed([b"1234", b"56789"])
    assert b"".join(summed) == b"123456789"
    assert (summed.crc32, summed.size_bytes) == (0xCBF43926, 9)
