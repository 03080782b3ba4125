"""An index entry survives its way through a key, whatever names a dump has."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from dumpagent.index.entry import IndexEntry, entry_in, from_json, index_prefix, key_of, needs_body, to_json

ENTRY = IndexEntry(
    path="shop_cart-7d4f9c8b6-x2k9q/java_pid1.hprof",
    when=1_767_268_800,
    stored_bytes=1 << 30,
    original_bytes=2 << 30,
    crc32=0x8D47DE7E,
    verdict="complete",
    cause="oom",
    node="worker-1.example.com",
    namespace="shop",
    pod="cart-7d4f9c8b6-x2k9q",
    workload="cart",
    cluster="prod",
)
_TEXT = st.text(st.characters(codec="utf-8"), max_size=40)


def test_a_key_can_be_read_by_a_person() -> None:
    assert key_of(ENTRY, prefix="a/b") == (
        "a/b/.dumpagent/index/2026-01-01/120000Z!co!40000000!80000000!8d47de7e!worker-1.example.com!shop"
        "!cart-7d4f9c8b6-x2k9q!cart!prod!shop_cart-7d4f9c8b6-x2k9q/java_pid1.hprof"
    )


@given(
    path=st.lists(_TEXT, min_size=1, max_size=5).map("/".join),
    node=_TEXT,
    pod=_TEXT,
    prefix=st.sampled_from(["", "a", "a/b/"]),
    crc32=st.none() | st.integers(0, 0xFFFFFFFF),
    verdict=st.sampled_from(["complete", "truncated", "unknown", ""]),
)
def test_every_entry_is_read_back_from_its_key_or_its_body(
    path: str, node: str, pod: str, prefix: str, crc32: int | None, verdict: str
) -> None:
    entry = dataclasses.replace(ENTRY, path=path, node=node, pod=pod, crc32=crc32, verdict=verdict)
    key = key_of(entry, prefix=prefix)
    assert key.startswith(index_prefix(prefix))
    assert key.isascii()
    assert len(key) <= 1024
    assert all(0 < len(name) <= 255 for name in key.split("/"))
    if not needs_body(key):
        assert entry_in(key, prefix=prefix) == entry
    assert from_json(to_json(entry)) == entry


def test_a_path_that_is_too_long_for_a_key_is_in_the_body() -> None:
    entry = dataclasses.replace(ENTRY, path="x/" * 500 + "heap.hprof")
    key = key_of(entry)
    assert needs_body(key)
    assert entry_in(key) is None
    assert len(key) < 200


def test_a_key_of_somebody_else_is_no_entry() -> None:
    for key in (
        ".dumpagent/index/2026-01-01/hello",
        ".dumpagent/index/2026-01-01/" + "!" * 10,
        ".dumpagent/index/2026-99-01/120000Z!co!1!1!1!!!!!!x",
        ".dumpagent/index/x",
        "shop/java_pid1.hprof",
    ):
        assert entry_in(key) is None


def test_a_body_of_somebody_else_is_no_entry() -> None:
    for body in (b"", b"[]", b"{}", b"\xff", to_json(ENTRY)[:-2], to_json(ENTRY).replace(b'"shop"', b"7")):
        assert from_json(body) is None
