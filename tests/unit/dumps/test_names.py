"""Names: nothing that is a dump is missed, nothing else is taken, and a claimed dump's name leads back to its own."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpagent.dumps import names

NOON_MS = 1_767_268_800_999  # 2026-01-01T12:00:00.999Z

_SUFFIXES = [".hprof", ".hprof.gz", ".hprof.1", ".hprof.12", ".hprof.gz.1", ".hprof.1.gz"]


@pytest.mark.parametrize("suffix", _SUFFIXES)
@pytest.mark.parametrize("stem", ["java_pid1", "heap.2", "a b", "\udcff", "x.hprof", "new\nline", ""])
def test_every_name_that_a_jvm_gives_its_dumps_is_a_dump(stem: str, suffix: str) -> None:
    assert names.is_dump_name(stem + suffix)
    assert names.is_gzip_name(stem + suffix) == (".gz" in suffix)


@pytest.mark.parametrize(
    "name",
    [
        "java_pid1.hprof.p0",  # a part of a dump in the making
        "java_pid1.hprof.gz.p12",
        "java_pid1.hprof.1.p0",
        "java_pid1.hprof.77.tmp",
        "java_pid1.hprof.part",
        "java_pid1.HPROF",
        "java_pid1.hprofx",
        "hprof",
        "java_pid1.hprof.",
        "java_pid1.hprof.x1",
        "java_pid1.hprof.1234567890",
        "hs_err_pid1.log",
        ".ready",
    ],
)
def test_segment_files_temporaries_and_strangers_are_no_dumps(name: str) -> None:
    assert not names.is_dump_name(name)


@pytest.mark.parametrize(
    ("name", "claimed"),
    [
        ("java_pid1.hprof", "java_pid1.20260101T120000Z.hprof"),
        ("java_pid1.hprof.gz", "java_pid1.20260101T120000Z.hprof.gz"),
        ("java_pid1.hprof.1", "java_pid1.20260101T120000Z.hprof.1"),
        ("java_pid1.hprof.gz.3", "java_pid1.20260101T120000Z.hprof.gz.3"),
        ("heap.hprof.hprof", "heap.hprof.20260101T120000Z.hprof"),
        ("java_pid1.20240101T000000Z.hprof", "java_pid1.20240101T000000Z.20260101T120000Z.hprof"),
        ("heap", "heap.20260101T120000Z"),
        ("heap.1", "heap.20260101T120000Z.1"),
        ("heap.p0", "heap.20260101T120000Z.p0"),
        ("app.HPROF", "app.20260101T120000Z.HPROF"),
        ("$(pwd)", "$(pwd).20260101T120000Z"),
        ("oom.dump", "oom.20260101T120000Z.dump"),
        (".dump", ".dump.20260101T120000Z"),
        ("heap.20240101T000000Z", "heap.20240101T000000Z.20260101T120000Z"),
    ],
)
def test_the_time_goes_before_the_suffix_and_comes_out_again(name: str, claimed: str) -> None:
    assert names.claimed_name(name, NOON_MS) == claimed
    assert names.original_name(claimed, NOON_MS) == name


def test_a_second_dump_of_the_same_name_and_second_gets_a_counter() -> None:
    claimed = names.claimed_name("java_pid1.hprof", NOON_MS, count=2)
    assert claimed == "java_pid1.20260101T120000Z-2.hprof"
    assert names.original_name(claimed, NOON_MS) == "java_pid1.hprof"
    assert names.claimed_name(claimed, NOON_MS) == claimed
    assert names.claimed_name(claimed, NOON_MS, count=3) == "java_pid1.20260101T120000Z-3.hprof"


@pytest.mark.parametrize(
    "name",
    ["java_pid1.20240101T000000Z.hprof", "java_pid1.20260101T120000Z-1.hprof", "x.txt", "java_pid1.hprof"],
)
def test_a_name_without_this_dumps_own_time_is_the_original(name: str) -> None:
    assert names.original_name(name, NOON_MS) == name


def test_a_claimed_dump_is_not_claimed_again() -> None:
    claimed = names.claimed_name("java_pid1.hprof", NOON_MS)
    assert names.claimed_name(claimed, NOON_MS) == claimed


@pytest.mark.parametrize("dump_time_ms", [-1, 1 << 63, 253402300800000])
def test_an_impossible_time_is_refused_rather_than_written_into_a_name(dump_time_ms: int) -> None:
    with pytest.raises(ValueError, match="no time"):
        names.claimed_name("java_pid1.hprof", dump_time_ms)
    assert names.original_name("java_pid1.hprof", dump_time_ms) == "java_pid1.hprof"


@given(
    stem=st.binary(max_size=40).map(os.fsdecode).filter(lambda s: "/" not in s and "\0" not in s),
    suffix=st.sampled_from(["", ".dump", ".p0", ".", *_SUFFIXES]),
    dump_time_ms=st.integers(0, 253402300799999),
    count=st.integers(1, 20),
)
def test_any_name_survives_claiming_and_back(stem: str, suffix: str, dump_time_ms: int, count: int) -> None:
    name = names.original_name(stem + suffix, dump_time_ms)
    claimed = names.claimed_name(name, dump_time_ms, count=count)
    assert names.is_dump_name(claimed) == names.is_dump_name(name)
    assert names.original_name(claimed, dump_time_ms) == name


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("java_pid1.hprof.p0", "java_pid1.hprof"),
        ("java_pid1.hprof.gz.p12", "java_pid1.hprof.gz"),
        ("java_pid1.hprof.1.p0", "java_pid1.hprof.1"),
        ("java_pid1.hprof", None),
        ("notes.p0", None),
        ("java_pid1.hprof.px", None),
    ],
)
def test_a_segment_file_names_its_dump(name: str, base: str | None) -> None:
    assert names.dump_of_segment(name) == base


@pytest.mark.parametrize("segment", ["", ".p0", ".p17"])
@pytest.mark.parametrize("suffix", _SUFFIXES)
def test_a_tag_keeps_a_dump_a_dump_and_a_segment_file_its_own(suffix: str, segment: str) -> None:
    """A rescued `x.hprof.1.gz` got a name that no scan found."""
    tagged = names.with_tag(f"heap{suffix}{segment}", ".rescued-20260101T120000Z")
    assert tagged == f"heap.rescued-20260101T120000Z{suffix}{segment}"
    found = names.parse(tagged)
    assert found == names.DumpName("heap.rescued-20260101T120000Z", suffix, segment)
    assert found.bare_stem == "heap"


def test_another_files_tag_goes_before_its_last_dot() -> None:
    assert names.with_tag("hs_err.log", ".x") == "hs_err.x.log"
    assert names.with_tag("core", ".x") == "core.x"


@given(
    st.binary(max_size=255).filter(lambda s: b"/" not in s and b"\0" not in s),
    st.sampled_from(["", *_SUFFIXES]),
)
def test_a_tagged_name_fits_and_differs(stem: bytes, suffix: str) -> None:
    name = os.fsdecode(stem[: 255 - len(suffix)]) + suffix
    tagged = names.with_tag(name, ".rescued-20260101T120000Z")
    assert len(os.fsencode(tagged)) <= 255
    assert ".rescued-20260101T120000Z" in tagged
    assert names.is_dump_name(tagged) == names.is_dump_name(name)
