"""Loading the SDK costs no more than it must, and leaves the process as it was."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from dumpagent.settings import S3
from dumpagent.store.s3 import S3Store


@pytest.fixture
def collections() -> Iterator[list[int]]:
    """Give the generations that the garbage collector goes through, as it does."""
    seen = list[int]()

    def see(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            seen.append(info["generation"])

    gc.callbacks.append(see)
    yield seen
    gc.callbacks.remove(see)


def test_the_garbage_collector_waits_until_the_client_is_made(collections: list[int]) -> None:
    S3Store(S3(bucket="dumps", endpoint_url="http://127.0.0.1:1")).warm_up()
    assert len(collections) <= 2  # what waited comes at the end
    assert gc.isenabled()


def test_the_garbage_collector_is_back_where_no_client_can_be_made() -> None:
    with pytest.raises(ValueError, match="endpoint"):
        S3Store(S3(bucket="dumps", endpoint_url="nowhere")).warm_up()
    assert gc.isenabled()


def test_a_garbage_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        S3Store(S3(bucket="dumps", endpoint_url="http://127.0.0.1:1")).warm_up()
        assert not gc.isenabled()
    finally:
        gc.enable()
