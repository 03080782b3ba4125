"""The threads that upload, one per destination, with the one that frees space where it has to ask both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from dumpagent.dumps.receipt import Receipt
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.observe.barrier import Barrier, repeat
from dumpagent.upload.worker import Outcome

_FAULT_WAIT_S = 1.0
_FREE_SPACE_EVERY_S = 1.0
# Going over what is stored takes as long as there are stored dumps, and changes nothing most times.
_PAUSE_TIMES, _LONGEST_PAUSE_S = 4.0, 10.0


class Destination(Protocol):
    """What a thread does for one store: upload what is due there, look after what was uploaded."""

    @property
    def barrier(self) -> Barrier: ...
    def upload_next(self, *, timeout_s: float) -> Outcome: ...
    def upload_companion(self) -> bool: ...
    def companions_are_overdue(self) -> bool: ...
    def reclaim(self) -> None: ...


class WorkerThread(threading.Thread):
    """Uploads dumps, one after the other, until the end. However long one takes, the main loop goes on."""

    def __init__(self, loop: Destination, shutdown: Shutdown, *, name: str = "upload") -> None:
        super().__init__(name=name, daemon=True)
        self._loop, self._shutdown = loop, shutdown
        self._died_of: BaseException | None = None
        self._has_companions = False
        self._reclaim_at = 0.0

    def run(self) -> None:
        """Upload until a stop. A fault of ours is told and the next dump goes on."""
        try:
            while not self._shutdown.stop.is_set():
                if not self._loop.barrier.run("upload and free space", self._step):
                    self._shutdown.stop.wait(_FAULT_WAIT_S)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self._died_of = error
            self._shutdown.wake()

    def _step(self) -> None:
        outcome = self._loop.upload_next(timeout_s=0.0 if self._has_companions else 1.0)
        wanted = outcome is None or self._loop.companions_are_overdue()
        self._has_companions = wanted and self._loop.upload_companion()
        if (outcome is None or isinstance(outcome, Receipt)) and time.monotonic() >= self._reclaim_at:
            began = time.monotonic()
            self._loop.reclaim()
            ended = time.monotonic()
            self._reclaim_at = ended + min(_LONGEST_PAUSE_S, (ended - began) * _PAUSE_TIMES)

    def raise_if_dead(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._died_of is not None:
            raise self._died_of


class ReplicaThreads:
    """The threads that may have to wait for the replica: one uploads to it, one frees space."""

    def __init__(self, replica: Destination, free_space: Callable[[], None], shutdown: Shutdown) -> None:
        self._replica, self._free, self._shutdown = replica, free_space, shutdown
        self._uploading: WorkerThread | None = None
        self._freeing: threading.Thread | None = None

    def begin(self) -> None:
        """Start those that do not run; where no thread can be had (the pod's pids limit), that is told, and tried again.

        Raises what ended the thread that uploads, if anything did.
        """
        self._replica.barrier.run("start the replica's threads", self._start)
        if self._uploading:
            self._uploading.raise_if_dead()

    def _start(self) -> None:
        if self._uploading is None:
            uploading = WorkerThread(self._replica, self._shutdown, name="replica")
            uploading.start()
            self._uploading = uploading
        if self._freeing is None:
            stop = self._shutdown.stop
            self._freeing = repeat(
                "free space", self._free_space, stopped=stop.is_set, barrier=self._replica.barrier
            )

    def _free_space(self) -> None:
        self._free()
        self._shutdown.stop.wait(_FREE_SPACE_EVERY_S)

    def end(self, grace_s: float) -> None:
        """Wait a little for the upload under way to be noted."""
        if self._uploading and self._uploading.is_alive():
            self._uploading.join(grace_s)
