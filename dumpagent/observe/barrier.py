"""Keeps a fault of the agent's own from ending a loop or a thread: it is told, counted, and the next step goes on."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import AgentFaulty, AgentSound
from dumpagent.observe.incident import Incident

_PAUSE_S = 1.0  # after a fault: what fails at once must not take the processor


class Barrier:
    """Runs steps of loops. An exception that nobody foresaw is told with its trace at once, then seldom, until the
    same step ends well again. One barrier may serve several threads."""

    def __init__(self, tell: Tell, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._incident = Incident(tell, AgentFaulty, AgentSound, monotonic=monotonic)

    def run(
        self,
        step: str,
        action: Callable[[], object],
        *,
        path: str | None = None,
        foreseen: tuple[type[Exception], ...] = (),
    ) -> bool:
        """Run `action`, which `step` names (with the file `path`, if it is about one). Says whether it ended well.

        Raises what is `foreseen`: the caller knows what to do about it.
        """
        try:
            action()
        except foreseen:
            raise
        except Exception as error:  # noqa: BLE001 - this is the barrier
            self.note(step, error, path=path)
            return False
        with self._lock:
            self._incident.ended_for((step, path), AgentSound(step=step, path=path))
        return True

    def note(self, step: str, error: BaseException, *, path: str | None = None) -> None:
        """Tell of a fault that was caught elsewhere."""
        fault = AgentFaulty(
            step=step,
            error=f"{type(error).__name__}: {error}",
            path=path,
            trace="".join(traceback.format_exception(error)),
        )
        with self._lock:
            self._incident.failed((step, path), fault)

    def forget(self, step: str, path: str) -> None:
        """Drop what is known of a file: it is gone."""
        with self._lock:
            self._incident.forget((step, path))


def repeat(
    step: str,
    action: Callable[[], object],
    *,
    stopped: Callable[[], bool],
    barrier: Barrier,
    pause_s: float = _PAUSE_S,
) -> threading.Thread:
    """Run `action` again and again in a thread of its own, named `step`, until `stopped()`.

    A fault is told and followed by a pause. Raises RuntimeError when no thread can be had.
    """

    def run() -> None:
        while not stopped():
            if not barrier.run(step, action):
                time.sleep(pause_s)

    thread = threading.Thread(target=run, name=step, daemon=True)
    thread.start()
    return thread
