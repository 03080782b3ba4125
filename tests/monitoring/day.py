"""A daemon as it is, with a clock that runs ahead while nothing is under way: a day in a minute or two.

`python -m tests.monitoring.day RECORD upload|mount [FLAG...]` runs that command of dumpagent from midnight to midnight,
scrapes it every minute, writes the samples to RECORD and ends it with SIGTERM. Clock and waits are replaced before
anything of dumpagent is imported; threads, children, requests and the kernel keep the machine's own time.
"""

from __future__ import annotations

import json
import os
import re
import selectors  # noqa: F401 - it takes the machine's clock when it is imported
import signal
import subprocess  # noqa: F401 - as above
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

MINUTE_S, DAY_S = 60.0, 86400.0
DUMPS_AT = (300, 600, 900, 1200)  # minutes of the day
_POLL_S = 0.004
_SAMPLE = re.compile(r"^([a-z_]+)(\{.*\})? (\S+)$", re.MULTILINE)


class Clock:
    """Seconds since midnight, which is when the process began."""

    def __init__(self) -> None:
        self.now = 0.0
        self._midnight = time.time()

    def monotonic(self) -> float:
        return 1_000_000.0 + self.now

    def time(self) -> float:
        return self._midnight + self.now

    def since_midnight(self, name: str, value: float) -> float:
        """Give a sample as a Prometheus would see it whose epoch is midnight."""
        return value - self._midnight if name.endswith("_time_seconds") or "_timestamp_" in name else value


class Recorder:
    """What was scraped, by series: one value a minute, None where there was none."""

    def __init__(self, clock: Clock, path: Path, port: int, minute: Callable[[int], None]) -> None:
        self._clock, self._path, self._port, self._minute = clock, path, port, minute
        self._series: dict[str, dict[int, float]] = {}
        self._scrape: threading.Thread | None = None
        self.minutes = 0

    @property
    def under_way(self) -> bool:
        return self._scrape is not None and self._scrape.is_alive()

    def advance(self, seconds: float) -> None:
        """Let time pass, up to the next full minute at most; there, a scrape begins."""
        due = self.minutes * MINUTE_S
        self._clock.now = min(self._clock.now + max(0.001, seconds), due)
        if self._clock.now < due:
            return
        self._minute(self.minutes)
        self._scrape = threading.Thread(target=self._read, args=(self.minutes,), daemon=True)
        self._scrape.start()
        self.minutes += 1

    def end(self) -> None:
        """Write what was recorded, and end the daemon."""
        known = {
            name: [values.get(minute) for minute in range(self.minutes)]
            for name, values in self._series.items()
        }
        self._path.write_text(json.dumps(known))
        os.kill(os.getpid(), signal.SIGTERM)

    def _read(self, minute: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        for name, labels, value in _SAMPLE.findall(text):
            seen = self._clock.since_midnight(name, float(value))
            self._series.setdefault(f"{name}{labels}", {})[minute] = seen


def _simulate(
    recorder: Recorder, busy: Callable[[], bool], clock: Clock, really: Callable[[float], Any]
) -> Callable[[float], Any]:
    """Give a wait that lets the clock run ahead if nothing is under way; `really` waits as long as it says."""

    def wait(seconds: float) -> Any:
        if clock.now >= DAY_S and not recorder.under_way:
            recorder.end()
            return really(_POLL_S)
        if busy() or recorder.under_way:
            clock.now += _POLL_S
            return really(_POLL_S)
        came = really(0)
        if not came:
            recorder.advance(seconds)
        return came

    return wait


def _upload(recorder: Recorder, clock: Clock) -> None:
    from dumpagent.kernel.shutdown import Shutdown
    from dumpagent.upload.loop import UploadLoop

    loops: list[UploadLoop] = []
    real_wait, real_look = Shutdown.wait, UploadLoop.look

    def look(self: UploadLoop, *, whole: bool = False) -> float | None:
        loops[:] = [self]
        return real_look(self, whole=whole)

    def busy() -> bool:
        asking = Path(f"/proc/self/task/{os.getpid()}/children").read_text()  # the question to the store
        return bool(asking) or any(loop.counts.pending for loop in loops)

    def wait(self: Shutdown, seconds: float, *, also: list[int] | None = None) -> list[int]:
        simulated = _simulate(recorder, busy, clock, lambda s: real_wait(self, s, also=also))
        ready: list[int] = simulated(seconds)
        return ready

    UploadLoop.look, Shutdown.wait = look, wait  # type: ignore[method-assign]


def _mount(recorder: Recorder, clock: Clock) -> None:
    from dumpagent.mount.table import Wakeups

    real_wait = Wakeups.wait

    def wait(self: Wakeups, until: float, fds: Iterable[int | None]) -> None:
        prober, rescuer, status = fds

        def really(seconds: float) -> bool:
            real_wait(self, clock.monotonic() + seconds, (prober, rescuer, status))
            return self.stopping

        at_work = prober is not None or rescuer is not None
        _simulate(recorder, lambda: at_work, clock, really)(until - clock.monotonic())

    Wakeups.wait = wait  # type: ignore[method-assign]


def main() -> None:
    record, mode, *flags = sys.argv[1:]
    clock = Clock()
    time.monotonic, time.time = clock.monotonic, clock.time

    def minute(number: int) -> None:
        if mode == "upload" and number in DUMPS_AT:
            from tests.harness.hprof import Maker

            # A JVM's name, which it takes for each of its dumps.
            Path(f"{os.environ['DUMP_ROOT']}/java_pid1.hprof").write_bytes(
                Maker().dump(segments=1 + number)  # another one each time
            )

    recorder = Recorder(clock, Path(record), int(os.environ["METRICS_PORT"]), minute)
    (_upload if mode == "upload" else _mount)(recorder, clock)
    sys.argv = ["dumpagent", mode, *flags]
    from dumpagent.__main__ import main as dumpagent

    dumpagent()


if __name__ == "__main__":
    main()
