"""A flaky test is told and does not fail the run, until its day is over."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.harness.flaky import Flaky, over, parse

DAY = dt.date(2026, 12, 1)
LISTED = [Flaky("tests/a.py::test_a[x]", DAY, "the port is taken now and then")]


def test_a_list_names_tests_days_and_reasons() -> None:
    text = "# a comment\n\ntests/a.py::test_a[x] | 2026-12-01 | the port is taken now and then\n"
    assert parse(text) == LISTED


@pytest.mark.parametrize(
    "line", ["tests/a.py::test_a", "a | 2026-12-01", "a | soon | b", "a | 2026-12-01 | "]
)
def test_an_entry_without_a_day_or_a_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"not `test id|Invalid isoformat"):
        parse(line)


def test_an_entry_is_good_up_to_its_day() -> None:
    assert over(LISTED, DAY) == []
    assert over(LISTED, DAY + dt.timedelta(days=1)) == [
        "tests/a.py::test_a[x]: listed until 2026-12-01, mend it"
    ]
