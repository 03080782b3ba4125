"""One part at a time goes out while that keeps the CPU busy; else several do, and nobody waits for ever."""

from __future__ import annotations

import os
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from dumpagent.dumps.source import FileSpan
from dumpagent.upload.transfer.throttle import CpuThrottle, InTurn


class Machine:
    """A clock that goes ten times as fast whenever somebody looks, and a CPU of which `share` is in use."""

    def __init__(self, share: float, *, cores: float = 1.0) -> None:
        self.now, self.share, self.cores = 100.0, share, cores

    def monotonic(self) -> float:
        self.now += 0.1
        return self.now

    def cpu(self) -> float:
        return self.now * self.share * self.cores

    def turns(self) -> CpuThrottle:
        return CpuThrottle(self.cores, monotonic=self.monotonic, cpu=self.cpu)


def other_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_the_second_waits_until_the_first_has_sent() -> None:
    turns = CpuThrottle(1.0, cpu=time.monotonic)  # never idle
    sent = list[str]()
    turns.take()

    def second() -> None:
        turns.take()
        sent.append("second")
        turns.give()

    thread = other_thread(second)
    thread.join(0.2)
    assert sent == []
    turns.give()
    thread.join(5)
    assert sent == ["second"]
    assert not turns.are_over


def test_both_send_when_one_does_not_keep_the_cpu_busy() -> None:
    for machine in (Machine(0.3), Machine(0.3, cores=0.2)):
        turns = machine.turns()
        turns.take()
        thread = other_thread(turns.take)
        thread.join(5)
        assert not thread.is_alive()
        assert turns.are_over


def test_a_limited_cpu_that_is_used_up_is_busy() -> None:
    machine = Machine(0.95, cores=0.2)
    turns = machine.turns()
    turns.take()
    thread = other_thread(turns.take)
    thread.join(0.5)
    assert thread.is_alive()
    assert not turns.are_over
    turns.give()
    thread.join(5)
    assert not thread.is_alive()


def test_nobody_waits_so_long_that_a_store_would_hang_up() -> None:
    machine = Machine(1.0)
    turns = machine.turns()
    turns.take()
    thread = other_thread(turns.take)
    machine.now += 6
    thread.join(5)
    assert not thread.is_alive()


def test_one_thread_may_take_its_turn_again_for_another_attempt_and_give_it_twice() -> None:
    turns = Machine(1.0).turns()
    turns.take()
    turns.take()
    turns.give()
    turns.give()
    thread = other_thread(turns.take)
    thread.join(5)
    assert not thread.is_alive()


def test_a_turn_is_given_only_by_whoever_has_it() -> None:
    turns = CpuThrottle(1.0, cpu=time.monotonic)
    turns.take()
    other_thread(turns.give).join(5)
    thread = other_thread(turns.take)
    thread.join(0.2)
    assert thread.is_alive()
    turns.give()
    thread.join(5)


def test_a_span_has_its_turn_from_its_first_byte_to_its_last(tmp_path: Path) -> None:
    content = os.urandom(3000)
    (tmp_path / "dump").write_bytes(content)
    turns = CpuThrottle(1.0, cpu=time.monotonic)
    with (tmp_path / "dump").open("rb") as file:

        def span() -> InTurn:
            return InTurn(
                FileSpan(file.fileno(), 0, 3000, zlib.crc32(content), read_bytes=1000), turns
            ).anew()

        first, second = span(), span()
        assert len(first) == 3000
        assert bytes(first.read(16)) == content[:1000]
        read = list[bytes]()
        thread = other_thread(lambda: read.append(bytes(second.read(16))))
        thread.join(0.2)
        assert read == []
        assert bytes(first.read(16)) + bytes(first.read(16)) == content[1000:]
        thread.join(5)
        assert read == [content[:1000]]
        assert bytes(first.read(16)) == b""
        first.seek(0)
        assert first.tell() == 0
        assert first.failure is None
