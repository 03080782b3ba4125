"""Keys follow from the dump alone, are safe in every store, and never run out before the dump's own bytes are in them."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from dumpagent.dumps.keys import candidates

NEW_YEAR = 1_767_225_600_000


def keys(original: str, *, prefix: str = "", node: str = "worker-1", crc32: int | None = 0xABCD) -> list[str]:
    return list(candidates(prefix=prefix, original=original, dump_time_ms=NEW_YEAR, node=node, crc32=crc32))


def test_first_its_path_then_its_time_then_its_node_then_its_bytes() -> None:
    assert keys("shop/java_pid1.hprof", prefix="team/") == [
        "team/shop/java_pid1.hprof",
        "team/shop/java_pid1.20260101T000000Z.hprof",
        "team/shop/java_pid1.20260101T000000Z.worker-1.hprof",
        "team/shop/java_pid1.20260101T000000Z.worker-1.0000abcd.hprof",
    ]


def test_the_suffix_that_tools_look_for_stays_at_the_end() -> None:
    assert keys("java_pid1.hprof.gz")[2].endswith(".worker-1.hprof.gz")
    assert keys("java_pid1.hprof.2")[3].endswith(".0000abcd.hprof.2")


def test_names_that_no_listing_can_show_are_escaped() -> None:
    assert keys("a\nb/caf\udce9.hprof")[0] == "a%0Ab/caf%E9.hprof"
    assert keys("ordinary ü 漢.hprof")[0] == "ordinary ü 漢.hprof"


def test_a_time_that_no_calendar_has_is_no_obstacle() -> None:
    (first, second, *_) = candidates(prefix="", original="x.hprof", dump_time_ms=1 << 62, node="n", crc32=1)
    assert first != second


names = (
    st.binary(min_size=1, max_size=255)
    .map(lambda raw: os.fsdecode(raw.replace(b"/", b"").replace(b"\0", b"")))
    .filter(lambda name: name not in ("", ".", ".."))
)


@given(st.lists(names, max_size=8), names, st.text(max_size=300))
def test_any_path_gives_four_different_keys_of_at_most_960_bytes(
    directories: list[str], stem: str, node: str
) -> None:
    found = keys("/".join([*directories, f"{stem}.hprof"]), prefix="p", node=node)
    assert len(set(found)) == 4
    for key in found:
        assert len(key.encode()) <= 960
        assert max(len(name.encode()) for name in key.split("/")) <= 240  # stores that keep objects as files
        assert key.isprintable() or not any(ord(character) < 32 or ord(character) == 127 for character in key)


@given(names, names)
def test_two_long_paths_that_differ_get_different_keys(first: str, second: str) -> None:
    deep = "/".join(["d" * 200] * 5)
    assert (keys(f"{deep}/{first}/x.hprof")[0] == keys(f"{deep}/{second}/x.hprof")[0]) == (first == second)
