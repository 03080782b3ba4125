"""The figures of the docs are those of the bench, and nothing else of the page changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.docs import BEGIN, END, put_in

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def test_new_figures_replace_the_old_ones_and_leave_the_prose() -> None:
    once = put_in(f"before\n{BEGIN}old\n{END}after\n", "| new |")
    assert once == f"before\n{BEGIN}\n| new |\n\n{END}after\n"
    assert put_in(once, "| new |") == once


def test_the_page_has_a_place_for_them() -> None:
    assert "| x |" in put_in(PAGE.read_text(), "| x |")


def test_a_page_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place"):
        put_in("prose\n", "| x |")
