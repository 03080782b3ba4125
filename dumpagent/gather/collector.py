"""Runs one collector in a child, so that one that fails or hangs costs its own part only."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from dumpagent.errors import DumpagentError
from dumpagent.kernel.children import reap
from dumpagent.kernel.forked import CRASHED, ForkedCall, Say

_MOST_CHARACTERS = 8 << 20
_PIECE = 1 << 15  # characters in one message of the child
_MOST_FAULTS = 200


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be collected: `collector` is its name, `what` says what happened, `hint` what to do."""

    collector: str
    what: str
    hint: str = ""


@dataclass(slots=True)
class Collected:
    """What one collector gave: text by file name, and what is missing."""

    files: dict[str, str] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)


class Desk:
    """Takes what a collector finds, piece by piece: what was given before it hangs is kept."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def add(self, file: str, text: str) -> None:
        """Append `text` to the file of this name in the archive."""
        for start in range(0, len(text), _PIECE):
            self._say({"file": file, "text": text[start : start + _PIECE]})

    def miss(self, what: str, hint: str = "") -> None:
        """Note that something is missing; the collector goes on."""
        self._say({"missing": what, "hint": hint})

    def attempt(self, what: str, step: Callable[[], None]) -> None:
        """Run `step`; what it raises is noted as missing, after the name `what` (empty: that of the collector alone)."""
        try:
            step()
        except DumpagentError as error:
            self.miss(_after(what, str(error)), error.hint)
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            self.miss(_after(what, f"{place}{error.strerror or error}"))
        except ValueError as error:
            self.miss(_after(what, f"{type(error).__name__}: {error}"))


def _after(what: str, why: str) -> str:
    return f"{what}: {why}" if what else why


@dataclass(frozen=True, slots=True)
class Collector:
    """One part of the archive: `work` may take `limit_s` seconds, and is killed then."""

    name: str
    work: Callable[[Desk], None]
    limit_s: float = 20.0


def collect(collector: Collector, *, clock: Callable[[], float] = time.monotonic) -> Collected:
    """Give what the collector found, and why the rest is missing. Never waits longer than its limit."""
    collected = Collected()

    def work(say: Say) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        desk = Desk(say)
        desk.attempt("", lambda: collector.work(desk))

    # What a signal handler raises while Python's own hooks run after a fork is printed and lost, and Ctrl-C with it.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        call = ForkedCall.start(work, now=clock())
    except OSError as error:
        collected.gaps.append(Gap(collector.name, f"no process can be started: {error.strerror}"))
        return collected
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        why = _heard(collector, call, collected, clock)
    finally:
        if not call.ended:
            call.abandon()
        reap()
    if why:
        kept = "; what it gave before is kept" if collected.files else ""
        collected.gaps.append(Gap(collector.name, why + kept))
    return collected


def _heard(collector: Collector, call: ForkedCall, collected: Collected, clock: Callable[[], float]) -> str:
    """Fill `collected` until the child ends; say why it was stopped, or nothing."""
    poll = select.poll()
    poll.register(call.fd, select.POLLIN)
    pieces: dict[str, list[str]] = {}
    characters, why = 0, ""
    while not call.ended and not why:
        left_s = call.started + collector.limit_s - clock()
        if left_s <= 0:
            why = f"no answer within {collector.limit_s:g} s"
            break
        poll.poll(left_s * 1000)
        for line in call.read():
            if CRASHED in line:
                collected.gaps.append(Gap(collector.name, str(line[CRASHED]), "please report this"))
            elif "missing" in line:
                if len(collected.gaps) < _MOST_FAULTS:
                    collected.gaps.append(Gap(collector.name, str(line["missing"]), str(line["hint"])))
            else:
                characters += len(str(line["text"]))
                if characters > _MOST_CHARACTERS:
                    why = f"more than {_MOST_CHARACTERS >> 20} MiB; the rest is left out"
                    break
                pieces.setdefault(str(line["file"]), []).append(str(line["text"]))
    collected.files |= {name: "".join(texts) for name, texts in pieces.items()}
    return why
