"""Rules for gates: which match, and which are none."""

from __future__ import annotations

import pytest

from dumpagent.analyze.rules import BadRule, read_rule
from tests.unit.analyze.examples import analysis


@pytest.mark.parametrize(
    ("rule", "matches"),
    [
        ("suspect > 30%", True),
        ("suspect > 60%", False),
        ("suspect>59.9%", True),
        ("suspect:com.acme.* > 10%", True),
        ("suspect:org.other > 10%", False),
        ("heap > 99MiB", True),
        ("heap > 100MiB", False),
        ("unreachable > 4MiB", True),
        ("instances:com.acme.Session > 1000", True),
        ("instances:com.acme.* > 1001", False),
        ("instances:org.* > 0", False),
        ("bytes:com.acme.Session > 0.04GiB", True),
        ("retained:com.acme.Session > 59%", True),
        ("loaders > 6", True),
        ("collection > 12345", False),
        ("thread > 1 MB", True),
    ],
)
def test_a_rule_compares_what_it_says(rule: str, *, matches: bool) -> None:
    assert read_rule(rule).matches(analysis()) is matches


@pytest.mark.parametrize(
    "text",
    ["", "suspect", "suspect < 3%", "suspect > x", "wealth > 3", "instances > 3", "heap:com.acme > 3", "loaders > 3%", "suspect > 3 parsecs"],
)  # fmt: skip
def test_what_is_no_rule_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(BadRule, match=r".{10,}"):
        read_rule(text)
