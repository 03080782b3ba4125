"""BANDWIDTH_LIMIT as people write it."""

from __future__ import annotations

import pytest

from dumpagent.bandwidth import BandwidthLimit, parse_bandwidth
from dumpagent.errors import BadSettings
from dumpagent.setting import declared
from dumpagent.settings import Sending

MIB = 1 << 20


@pytest.mark.parametrize("text", ["none", "", "0", "off", "None", "none, none"])
def test_no_limit_has_several_names(text: str) -> None:
    limit = parse_bandwidth(text)
    assert limit.rules == ()
    assert limit.least_bytes_s is None


@pytest.mark.parametrize(
    ("text", "bytes_s"),
    [
        ("10MiB/s", 10 * MIB),
        ("10Mi", 10 * MIB),
        ("1.5 MiB/s", 1.5 * MIB),
        ("2MB/s", 2e6),
        ("80Mbit/s", 10e6),
        ("80Mbitps", 10e6),
        ("65536", 65536),
        ("64KiB", 65536),
        ("100kB/s", 100_000),
        ("1GiB/s", 1 << 30),
    ],
)
def test_a_rate_holds_all_day(text: str, bytes_s: float) -> None:
    limit = parse_bandwidth(text)
    assert [limit.bytes_s_at(minute) for minute in (0, 719, 1439)] == [bytes_s] * 3
    assert not limit.has_hours


def test_the_first_rule_that_holds_counts() -> None:
    limit = parse_bandwidth("2MiB/s 08:00-18:00, 10MiB/s 18:00-22:30, none")
    of_the_day = {hour: limit.bytes_s_at(int(hour * 60)) for hour in (0, 7.99, 8, 17.99, 18, 22.49, 22.5)}
    assert of_the_day == {
        0: None, 7.99: None, 8: 2 * MIB, 17.99: 2 * MIB, 18: 10 * MIB, 22.49: 10 * MIB, 22.5: None,
    }  # fmt: skip
    assert limit.least_bytes_s == 2 * MIB
    assert limit.has_hours


def test_hours_go_over_midnight_and_up_to_24() -> None:
    limit = parse_bandwidth("none 22:00-6:00,1MiB/s 20:00-24:00,2MiB/s")
    assert [limit.bytes_s_at(hour * 60) for hour in (23, 5, 6, 21)] == [None, None, 2 * MIB, MIB]


@pytest.mark.parametrize(
    "text",
    ["fast", "10", "1KiB/s", "10Mb/s", "10mb", "10MiB/s 8-18", "10MiB/s 08:00-08:00", "10MiB/s 08:00-25:00", "-1MiB/s",
     "10MiB/s;none", "10MiB/s 08:61-09:00", "1TiB/s", "10MiB/s,", "08:00-18:00"],
)  # fmt: skip
def test_what_is_no_limit_is_refused_with_the_form_that_is_accepted(text: str) -> None:
    setting = declared(Sending)["bandwidth_limit"][0]
    with pytest.raises(BadSettings, match=r"BANDWIDTH_LIMIT.*accepted: none, or a rate.*08:00-18:00"):
        setting.parse(text)


def test_it_is_shown_as_it_was_written() -> None:
    assert str(parse_bandwidth("2MiB/s 08:00-18:00, none")) == "2MiB/s 08:00-18:00, none"
    assert str(BandwidthLimit()) == "none"
