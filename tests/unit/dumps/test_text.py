"""Text for people: one form of times and sizes, and nothing foreign that steers a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dumpagent.dumps.text import iso_time, iso_time_ms, printable, size_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_767_268_800.999, "2026-01-01T12:00:00Z"),
        (-1.5, "1969-12-31T23:59:58Z"),
        (253402300799.5, "9999-12-31T23:59:59Z"),
        (253402300801, None),
        (float("inf"), None),
        (float("nan"), None),
        (None, None),
    ],
)
def test_a_time_has_one_form_and_one_that_cannot_be_has_none(seconds: float | None, text: str | None) -> None:
    assert iso_time(seconds) == text


def test_a_header_without_a_time_says_none() -> None:
    assert iso_time_ms(0) is None
    assert iso_time_ms(None) is None
    assert iso_time_ms(1 << 63) is None
    assert iso_time_ms(1_767_268_800_999) == "2026-01-01T12:00:00Z"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (3 << 20, "3.0 MiB"),
        (5 << 40, "5.0 TiB"), (1 << 62, "4096.0 PiB"),
    ],
)  # fmt: skip
def test_a_size_has_one_form(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢 text", "plain ü 漢 text"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b2J", r"\x9b2J"),  # CSI in one byte
        ("two\nlines\tand\r", r"two\nlines\tand\r"),
        ("caf\udce9", r"caf\xe9"),  # a byte that is no UTF-8
        ("\ud800", r"\ud800"),
        ("\u202egnp.exe", r"\u202egnp.exe"),  # right-to-left override
        ("a\u2066b\u200bc\ufeffd", r"a\u2066b\u200bc\ufeffd"),
        ("\u2028", r"\u2028"),
        ("\U000e0041", r"\U000e0041"),  # tag characters, which nobody sees
    ],
)
def test_what_would_steer_a_terminal_is_shown_instead(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_lines_of_our_own_stay_lines() -> None:
    assert printable("one\n\ttwo \x1b\n", lines=True) == "one\n\ttwo \\x1b\n"


@given(st.text(alphabet=st.characters(exclude_categories=())), st.booleans())
def test_nothing_gets_through(text: str, lines: bool) -> None:
    shown = printable(text, lines=lines)
    assert shown.replace("\n", "").replace("\t", "").isprintable() if lines else shown.isprintable()
    shown.encode()
