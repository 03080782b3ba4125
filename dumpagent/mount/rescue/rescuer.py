"""Has one rescue pass at a time made by a forked child, and tells what became of each file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from dumpagent.kernel.forked import CRASHED, ForkedCall, Say
from dumpagent.mount.rescue.move import DIRECTORY, opened
from dumpagent.mount.rescue.walk import Outcome, Rescue, RescuePass, hidden_directory
from dumpagent.observe.events import Tell
from dumpagent.observe.events.mount import FileRescued, RescueFailed, RescueRecovered, StaleReadyRemoved
from dumpagent.observe.incident import Incident

_WHOLE_PASS = ""


@dataclass
class Rescuer:
    """Moves what the mount hides into the volume. `quiet_s` is asked of a file whose writers cannot be known."""

    source: str
    target: str
    node: str
    quiet_s: float
    tell: Tell
    close: Iterable[int] = ()
    monotonic: Callable[[], float] = time.monotonic
    waiting: int = 0  # files that the last pass left for later
    _call: ForkedCall | None = None
    _trouble: Incident[RescueFailed, RescueRecovered] = field(init=False)
    _troubled: set[str] = field(default_factory=set)
    _since: dict[str, float] = field(default_factory=dict)  # stamp of a waiting file -> first seen
    _heard: list[Rescue] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._trouble = Incident(self.tell, RescueFailed, RescueRecovered, monotonic=self.monotonic)

    @property
    def fd(self) -> int | None:
        """Give what to poll for news; None while no pass is under way."""
        return self._call.fd if self._call else None

    def start(self) -> None:
        """Begin a pass, if none is under way. Raises OSError when no process can be had."""
        if self._call is not None:
            return
        now = self.monotonic()
        quiet = {stamp for stamp, since in self._since.items() if now - since >= self.quiet_s}
        self._heard = []
        self._call = ForkedCall.start(lambda say: self._pass(quiet, say), now=now, close=self.close)

    def _pass(self, quiet: set[str], say: Say) -> None:
        hidden = hidden_directory(self.target)
        if hidden is None:
            return
        with opened(hidden), opened(os.open(self.source, DIRECTORY)) as volume:
            rescue = RescuePass(
                hidden, volume, self.node, lambda done: say(done.as_line()), quiet.__contains__
            )
            rescue.run()

    def collect(self) -> bool:
        """Tell what has become of files since; say whether a pass has ended by it."""
        if self._call is None:
            return False
        for line in self._call.read():
            if CRASHED in line:
                self._heard.append(Rescue(Outcome.FAILED, _WHOLE_PASS, error=str(line[CRASHED])))
            else:
                self._heard.append(Rescue.from_line(line))
            self._tell_of(self._heard[-1])
        if not self._call.ended:
            return False
        self._call = None
        self._remember()
        return True

    def abandon(self) -> None:
        """Kill the pass that is under way; the next one finds everything as it would after a crash."""
        if self._call is not None:
            self._call.abandon()
        self._call = None

    def _tell_of(self, rescue: Rescue) -> None:
        if rescue.outcome is Outcome.RESCUED:
            self.tell(
                FileRescued(
                path=rescue.path, to=rescue.to, size_bytes=rescue.size_bytes, seconds=rescue.seconds,
            ))  # fmt: skip
        elif rescue.outcome is Outcome.READY_REMOVED:
            self.tell(StaleReadyRemoved(path=rescue.path))
        elif rescue.outcome is Outcome.FAILED:
            self._trouble.failed(
                rescue.path, RescueFailed(error=rescue.error, path=rescue.path or self.target)
            )

    def _remember(self) -> None:
        now = self.monotonic()
        waiting = [rescue for rescue in self._heard if rescue.outcome is Outcome.WAITING]
        failed = {rescue.path for rescue in self._heard if rescue.outcome is Outcome.FAILED}
        self._since = {rescue.stamp: self._since.get(rescue.stamp, now) for rescue in waiting}
        for path in self._troubled - failed:
            self._trouble.ended_for(path, RescueRecovered(path=path or self.target))
        self._troubled = failed
        self.waiting = len(waiting)
