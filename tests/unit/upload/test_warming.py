"""The store's client is made ready once, in nobody's way."""

from __future__ import annotations

import threading

from dumpagent.upload.daemon import Warming


def test_it_is_made_ready_once_and_nobody_waits() -> None:
    calls, may_end = [], threading.Event()

    def warm_up() -> None:
        calls.append(threading.current_thread())
        may_end.wait(60)

    warming = Warming(warm_up)
    warming.begin()
    warming.begin()
    may_end.set()
    for thread in calls:
        thread.join(60)
    assert len(calls) == 1
    assert calls[0] is not threading.current_thread()


def test_what_fails_is_left_to_the_first_request() -> None:
    failed = threading.Event()

    def warm_up() -> None:
        failed.set()
        raise RuntimeError("no such profile")

    Warming(warm_up).begin()
    assert failed.wait(60)
