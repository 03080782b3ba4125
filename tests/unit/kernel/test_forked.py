"""Errands: a child's words arrive whole, its crash is told, and one that hangs holds up nobody."""

from __future__ import annotations

import os
import select
import time

from dumpagent.kernel.children import reap
from dumpagent.kernel.forked import CRASHED, ForkedCall, Say


def all_of(errand: ForkedCall) -> list[dict[str, object]]:
    said: list[dict[str, object]] = []
    while not errand.ended:
        select.select([errand.fd], [], [], 10)
        said += errand.read()
    return said


def test_everything_a_child_says_arrives_in_order_and_any_name_survives() -> None:
    names = ["a b", "new\nline", "\udcff", "ü" * 70_000]

    def work(say: Say) -> None:
        for name in names:
            say({"path": name})

    assert [line["path"] for line in all_of(ForkedCall.start(work, now=0))] == names


def test_a_crash_is_told_with_its_error() -> None:
    def work(_: Say) -> None:
        raise OSError(5, "Input/output error", "/x")

    (told,) = all_of(ForkedCall.start(work, now=0))
    assert "Input/output error" in str(told[CRASHED])


def test_a_child_keeps_none_of_the_descriptors_that_it_was_told_to_close() -> None:
    """Else a child that cannot die would hold the node's lock for ever."""
    lock = os.open(__file__, os.O_RDONLY)

    def work(say: Say) -> None:
        for fd in os.listdir("/proc/self/fd"):
            try:
                say({"open": os.readlink(f"/proc/self/fd/{fd}")})
            except FileNotFoundError:
                pass  # the listing's own

    opened = [line["open"] for line in all_of(ForkedCall.start(work, now=0, close=[lock]))]
    assert opened
    assert os.path.realpath(__file__) not in opened
    os.close(lock)


def test_an_abandoned_child_is_gone_and_reaped_without_waiting_for_it() -> None:
    errand = ForkedCall.start(lambda _: time.sleep(600), now=0)
    errand.abandon()
    errand.abandon()
    reaped: list[int] = []
    until = time.monotonic() + 10
    while errand.pid not in reaped and time.monotonic() < until:
        reaped += reap()
    assert errand.pid in reaped
