"""How many bytes a second may be sent, by the hour of the day: the value of BANDWIDTH_LIMIT."""

from __future__ import annotations

import re
from dataclasses import dataclass

ACCEPTED = (
    "none, or a rate from 16KiB/s on (10MiB/s, 2.5MB/s, 80Mbit/s), also with hours: the first that holds at the time counts, "
    "as in `2MiB/s 08:00-18:00, 10MiB/s 18:00-22:00, none`; hours are UTC, or of the zone in TZ"
)
_LEAST_BYTES_S, _MOST_BYTES_S = 16 << 10, 1 << 40
_NONE = ("none", "off", "0", "")
# Mb and mb are left out: bits to some, bytes to others.
_UNITS = {
    "": 1, "B": 1, "kB": 1000, "KB": 1000, "MB": 1000**2, "GB": 1000**3,
    "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30,
    "kbit": 125, "Kbit": 125, "Mbit": 125_000, "Gbit": 125_000_000,
}  # fmt: skip
_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*?)(?:/s|ps)?")
_HOURS = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class RateRule:
    """A rate, None for no limit, and the minutes of the day when it holds; an end before the begin is on the next day."""

    bytes_s: float | None
    begin_minute: int = 0
    end_minute: int = _DAY_MINUTES

    def holds_at(self, minute: int) -> bool:
        """Say whether the rule holds in this minute of the day."""
        if self.begin_minute < self.end_minute:
            return self.begin_minute <= minute < self.end_minute
        return minute >= self.begin_minute or minute < self.end_minute


@dataclass(frozen=True, slots=True)
class BandwidthLimit:
    """The rules, of which the first that holds counts; where none does, nothing is limited. `text` is the setting's."""

    rules: tuple[RateRule, ...] = ()
    text: str = "none"

    def __str__(self) -> str:
        return self.text

    @property
    def has_hours(self) -> bool:
        """Say whether the time of the day matters."""
        return any(rule.end_minute - rule.begin_minute != _DAY_MINUTES for rule in self.rules)

    @property
    def least_bytes_s(self) -> float | None:
        """The lowest rate of the day; None if nothing is ever limited."""
        return min((rule.bytes_s for rule in self.rules if rule.bytes_s is not None), default=None)

    def bytes_s_at(self, minute: int) -> float | None:
        """Give the rate in this minute of the day, None for no limit."""
        return next((rule.bytes_s for rule in self.rules if rule.holds_at(minute)), None)


def parse_bandwidth(text: str) -> BandwidthLimit:
    """Read the setting. Raises ValueError for anything that is not a limit."""
    if text.strip().lower() in _NONE:
        return BandwidthLimit()
    rules = tuple(_rule(part.strip()) for part in text.split(","))
    if not any(rule.bytes_s for rule in rules):
        return BandwidthLimit(text=text)
    return BandwidthLimit(rules, text)


def _rule(text: str) -> RateRule:
    rate, blank, hours = text.rpartition(" ")
    if not blank or ":" not in hours:
        return RateRule(_rate(text))
    found = _HOURS.fullmatch(hours)
    if not found:
        raise ValueError(text)
    begin, end = _minute(found[1], found[2]), _minute(found[3], found[4])
    if begin in (end, _DAY_MINUTES):
        raise ValueError(text)
    return RateRule(_rate(rate.strip()), begin, end)


def _rate(text: str) -> float | None:
    if text.lower() in _NONE[:3]:
        return None
    found = _RATE.fullmatch(text)
    if not found or found[2] not in _UNITS:
        raise ValueError(text)
    bytes_s = float(found[1]) * _UNITS[found[2]]
    if not _LEAST_BYTES_S <= bytes_s <= _MOST_BYTES_S:
        raise ValueError(text)
    return bytes_s


def _minute(hour: str, minute: str) -> int:
    of_the_day = int(hour) * 60 + int(minute)
    if int(minute) > 59 or of_the_day > _DAY_MINUTES:
        raise ValueError(f"{hour}:{minute}")
    return of_the_day
