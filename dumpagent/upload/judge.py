"""Says whether a dump may be uploaded now. For now by quiet time alone: it has stood still long enough."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from dumpagent.model import DumpFile, Identity, State, Verdict


class Judge(Protocol):
    """Judges dump files, and remembers between two looks what it has learnt of each."""

    def judge(self, dump: DumpFile) -> Verdict:
        """Give what is known of the dump now. Raises OSError if the volume does not let it be read."""

    def forget(self, dump: DumpFile) -> None:
        """Drop what was learnt of a dump that is gone or stored."""


class QuietJudge:
    """Due when size and time have stood still for `quiet_s`, by our own clock or by the file's age."""

    def __init__(
        self,
        *,
        quiet_s: float,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quiet_s, self._now, self._monotonic = quiet_s, now, monotonic
        self._still_since: dict[tuple[int, int], tuple[Identity, float]] = {}

    def judge(self, dump: DumpFile) -> Verdict:
        key = (dump.device, dump.identity.inode)
        known = self._still_since.get(key)
        if known is None or known[0] != dump.identity:
            known = self._still_since[key] = (dump.identity, self._monotonic())
        still_s = max(self._monotonic() - known[1], self._now() - dump.mtime)
        if still_s >= self._quiet_s:
            return Verdict(State.UNKNOWN, f"unchanged for {still_s:.0f} s", due=True)
        return Verdict(
            State.UNKNOWN,
            f"unchanged for {max(0.0, still_s):.0f} s of the {self._quiet_s:.0f} s asked for",
            due=False,
            recheck_s=self._quiet_s - max(0.0, still_s),
        )

    def forget(self, dump: DumpFile) -> None:
        self._still_since.pop((dump.device, dump.identity.inode), None)
