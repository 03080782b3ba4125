"""Bodies keep BANDWIDTH_LIMIT: all threads together, in small pieces, by the hour."""

from __future__ import annotations

import calendar
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dumpagent.bandwidth import parse_bandwidth
from dumpagent.dumps.source import FileSpan, Stopped
from dumpagent.store.pace import Pace
from dumpagent.store.protocol import Span

MIB = 1 << 20
NOON_S = calendar.timegm((2026, 3, 1, 12, 0, 0))


class Clock:
    """A clock that goes on when somebody sleeps."""

    def __init__(self, wall_s: float = NOON_S) -> None:
        self.now, self.wall_s, self.longest_s = 1000.0, wall_s, 0.0

    def sleep(self, seconds: float) -> None:
        self.longest_s = max(self.longest_s, seconds)
        self.now += seconds

    def pace(self, limit: str) -> Pace:
        return Pace(
            parse_bandwidth(limit), monotonic=lambda: self.now, wall=lambda: self.wall_s + self.now - 1000, sleep=self.sleep
        )  # fmt: skip


def sent(body: bytes | Span, *, ask: int = 16384) -> bytes:
    """Give what an HTTP library would send of this body."""
    if isinstance(body, bytes):
        return body
    return b"".join(bytes(piece) for piece in iter(lambda: body.read(ask), b""))


@pytest.mark.parametrize("limit", ["64KiB/s", "1MiB/s", "10MiB/s"])
def test_a_body_takes_as_long_as_the_limit_says_and_never_pauses_for_long(limit: str) -> None:
    clock = Clock()
    pace = clock.pace(limit)
    data = bytes(range(256)) * (4 * MIB // 256)
    assert sent(pace.paced(data)) == data
    took_s = clock.now - 1000
    rate = parse_bandwidth(limit).least_bytes_s
    assert rate
    assert len(data) / rate - 0.5 <= took_s <= len(data) / rate + 0.1
    assert clock.longest_s <= 0.3


def test_a_dump_on_disk_keeps_its_bytes_its_checksum_and_its_stop(tmp_path: Path) -> None:
    path = tmp_path / "a.hprof"
    path.write_bytes(bytes(range(256)) * 8192)
    clock = Clock()
    with path.open("rb") as file:
        stopped = False
        span = FileSpan(file.fileno(), 0, 2 * MIB, zlib.crc32(path.read_bytes()), stopped=lambda: stopped)
        body = clock.pace("1MiB/s").paced(span)
        assert not isinstance(body, bytes)
        assert len(body) == 2 * MIB
        first = bytes(body.read(16384))
        assert 0 < len(first) <= 256 << 10
        assert body.tell() == len(first)
        body.seek(0)
        assert body.tell() == 0
        assert sent(body) == path.read_bytes()
        body.seek(0)
        stopped = True
        with pytest.raises(Stopped):
            sent(body)
        assert isinstance(body.failure, Stopped)


def test_several_threads_share_one_limit() -> None:
    import threading
    import time

    pace = Pace(parse_bandwidth("8MiB/s"))
    data = bytes(2 * MIB)
    began = time.monotonic()
    gaps = []

    def send(_number: int) -> None:
        body, last = pace.paced(data), time.monotonic()
        assert not isinstance(body, bytes)
        while body.read(16384):
            gaps.append(time.monotonic() - last)
            last = time.monotonic()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, range(4)))
    assert time.monotonic() - began >= 8 / 8 - 0.3
    assert max(gaps) < 10
    assert threading.active_count() >= 1


def test_the_rate_changes_with_the_hour_in_the_middle_of_a_body() -> None:
    clock = Clock(NOON_S - 10)  # ten seconds before noon
    data = bytes(30 * MIB)
    assert sent(clock.pace("1MiB/s 06:00-12:00, 10MiB/s").paced(data)) == data
    assert 11.5 <= clock.now - 1000 <= 12.6  # ten at 1 MiB/s, the other twenty at 10


def test_hours_are_those_of_tz(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setenv("TZ", "XST-9")
    time.tzset()
    try:
        noon_in_utc = Clock().pace("1MiB/s 20:00-22:00, none")
        assert noon_in_utc.piece_bytes()
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    assert Clock().pace("1MiB/s 20:00-22:00, none").piece_bytes() is None


def test_without_a_limit_a_body_is_handed_over_as_it_is() -> None:
    data = b"x" * 100
    assert Clock().pace("none").paced(data) is data
    assert Clock().pace("none").part_bytes is None


def test_parts_are_so_large_that_each_takes_half_a_minute_at_the_lowest_rate() -> None:
    assert Clock().pace("1MiB/s 08:00-18:00, 100MiB/s").part_bytes == 30 * MIB
