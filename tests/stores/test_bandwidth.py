"""BANDWIDTH_LIMIT as the store sees it: how long the bytes take to come, and that they never stop coming."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.harness.stores.fake import fake_store
from tests.stores.test_quirks import MIB, Node, a_dump, digest, whole

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("size_bytes", [20 * MIB, 3 * MIB])
def test_dumps_arrive_no_faster_than_the_limit_and_without_long_pauses(
    tmp_path: Path, size_bytes: int, compression: str
) -> None:
    """In parts, two at once, or in one request; with the log that lies beside it."""
    rate = 2 * MIB
    with fake_store() as store:
        node = Node(tmp_path, store)
        content = a_dump(size_bytes)
        node.dump(content)
        began = time.monotonic()
        node.upload(BANDWIDTH_LIMIT="2MiB/s", COMPRESSION=compression)
        took_s = time.monotonic() - began
        assert whole(store) == [digest(content)]
    assert took_s >= 0.85 * size_bytes / rate
    assert store.longest_pause_s < 10


def test_hours_that_are_over_limit_nothing(tmp_path: Path) -> None:
    hour = time.gmtime().tm_hour
    with fake_store() as store:
        node = Node(tmp_path, store)
        content = a_dump(20 * MIB)
        node.dump(content)
        # Up to two hours from now, lest the test meet the end of an hour.
        node.upload(BANDWIDTH_LIMIT=f"16KiB/s {(hour + 3) % 24:02}:00-{(hour + 4) % 24:02}:00, none")
        assert whole(store) == [digest(content)]


def test_a_limit_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with fake_store() as store:
        node = Node(tmp_path, store)
        node.dump(a_dump(1000))
        code, lines = node.run("upload", "--once", BANDWIDTH_LIMIT="10Mb/s", TZ="Europe/Nowhere")
        assert code == 2
        assert "BANDWIDTH_LIMIT is '10Mb/s'; accepted: none, or a rate" in str(lines)
        code, lines = node.run("upload", "--once", BANDWIDTH_LIMIT="10MiB/s 08:00-18:00", TZ="Europe/Nowhere")
        assert code == 2
        assert "TZ is 'Europe/Nowhere'" in str(lines)
        assert store.dumps == {}
