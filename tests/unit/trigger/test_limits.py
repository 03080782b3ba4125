"""One request at a time, and a least interval for each pod that no clock and no restart goes around."""

from __future__ import annotations

from pathlib import Path

import pytest

from dumpagent.errors import Refused
from dumpagent.trigger.limits import LeastInterval, one_at_a_time

POD, OTHER = "0a0b-1", "0a0b-2"


def test_a_second_request_is_refused_while_one_is_under_way(tmp_path: Path) -> None:
    """And the next one is taken when it has ended, however it ended."""
    with one_at_a_time(str(tmp_path)):
        with pytest.raises(Refused, match="another request is under way"), one_at_a_time(str(tmp_path)):
            pass
        with pytest.raises(Refused), one_at_a_time(str(tmp_path)):
            pass
    with one_at_a_time(str(tmp_path)):
        pass


def test_a_pod_is_asked_once_in_the_interval(tmp_path: Path) -> None:
    """Each pod for itself; a new process remembers."""
    now = 1000.0
    LeastInterval(str(tmp_path), 900, lambda: now).note(POD)
    later = LeastInterval(str(tmp_path), 900, lambda: now + 300)
    with pytest.raises(Refused, match="asked 300 s ago") as refused:
        later.require(POD)
    assert "wait 600 s more" in refused.value.hint
    later.require(OTHER)
    LeastInterval(str(tmp_path), 900, lambda: now + 900).require(POD)


def test_a_note_that_cannot_be_read_stops_nobody(tmp_path: Path) -> None:
    """A cut one, or one of a later time than now: no limit for ever."""
    (tmp_path / f"triggered-{POD}").write_text("")
    LeastInterval(str(tmp_path), 900).require(POD)
    LeastInterval(str(tmp_path), 900, lambda: 1e9).note(POD)
    LeastInterval(str(tmp_path), 900, lambda: 5.0).require(POD)
