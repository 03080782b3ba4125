"""Whoever reads of a trouble is told what to do about it."""

from __future__ import annotations

from dumpagent.mount import hints
from dumpagent.mount.backend import Backend
from dumpagent.mount.table import Shows


def test_there_is_advice_for_everything_that_can_be_found() -> None:
    """No finding without a hint."""
    assert set(hints.FINDINGS) == set(Shows) - {Shows.THE_SOURCE}
    assert set(hints.BACKENDS) == set(Backend) - {Backend.WRITABLE}
