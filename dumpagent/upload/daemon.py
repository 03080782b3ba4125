"""Upload mode as a daemon: one thread looks, one brings, one process asks the store, and none waits for another."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

from dumpagent.dumps.receipt import Receipt
from dumpagent.errors import Unreachable
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.observe.events import Tell
from dumpagent.observe.events.volume import OtherAgentFound, OtherAgentGone, SpaceMeasured
from dumpagent.observe.incident import Incident
from dumpagent.probes.heartbeat import Health, Pulse
from dumpagent.settings import S3, Asking, Watching
from dumpagent.store.s3.probe import StoreProbe, Unanswered
from dumpagent.upload.keeping.retention import settle_all, space_of
from dumpagent.upload.ledger import AnotherAgent, Ledger
from dumpagent.upload.loop import UploadLoop
from dumpagent.upload.volume.watch import Woken, open_watch

GRACE_S = 3.0  # a pod is killed after its grace period; what is under way then goes on at the next start
_LOCK_RETRY_S = 5.0
_LEAST_RECHECK_S = 0.05
_UNANSWERED_S = 120.0  # the SDK's own tries end before, where anything answers at all
_BEAT_EVERY_S = 10.0


class Daemon:
    """Looks after the volume until a stop. `run` belongs to the main thread.

    `warm_up` makes the store's client ready; it is called once, in a thread, when the first dump is on its way.
    """

    def __init__(
        self,
        loop: UploadLoop,
        ledger: Ledger,
        *,
        s3: S3,
        warm_up: Callable[[], None],
        watching: Watching,
        asking: Asking,
        pulse: Pulse,
        tell: Tell,
        ending: Shutdown,
    ) -> None:
        self._loop, self._ledger, self._pulse, self._tell, self._ending = loop, ledger, pulse, tell, ending
        self._watching = watching
        self._warming = Warming(warm_up)
        self._question = StoreQuestion(s3, loop, every_s=asking.store_check_interval_s)

    def run(self) -> None:
        """Look and bring until a stop. Raises what ended the thread that brings, if anything did."""
        self._ledger.load()
        self._own_the_volume()
        self._question.begin()
        bringer = WorkerThread(self._loop, self._ending)
        bringer.start()
        self._look_until_the_end(bringer)
        self._loop.backlog.wake()
        self._question.close()
        bringer.join(GRACE_S)
        self._pulse.stop()

    def _own_the_volume(self) -> None:
        """Wait until no other agent works on this volume, and finish what the last one left."""
        other = Incident(self._tell, OtherAgentFound, OtherAgentGone)
        while not self._ending.stop.is_set():
            try:
                self._ledger.lock()
                settle_all(self._loop.root, self._ledger.directory)
                break
            except AnotherAgent as error:
                other.failed("lock", OtherAgentFound(error=str(error), hint=error.hint))
                self._pulse.beat(Health.NOT_READY, str(error))
                self._ending.wait(_LOCK_RETRY_S)
        other.ended_for("lock", OtherAgentGone())

    def _look_until_the_end(self, bringer: WorkerThread) -> None:
        watch = open_watch(self._loop.root, tell=self._tell, skip=frozenset({self._ledger.directory}))
        next_scan, woken = 0.0, Woken()
        while not self._ending.stop.is_set():
            if woken.everything or time.monotonic() >= next_scan:
                next_scan = time.monotonic() + self._watching.watch_interval_s
                if watch:
                    watch.cover()  # before the scan: what is finished between the two is seen by one of them
                recheck_s = self._loop.look()
                _measure_space(self._loop.root, self._tell)
            elif woken.relpaths:
                recheck_s = self._loop.look_at(woken.relpaths)
            else:
                recheck_s = self._loop.look_again()
            wait_s = min(next_scan - time.monotonic(), _BEAT_EVERY_S)
            if recheck_s is not None:
                wait_s = min(wait_s, max(recheck_s, _LEAST_RECHECK_S))
            if woken.begun or self._loop.counts.pending:
                self._warming.begin()
            bringer.raise_if_dead()
            self._beat()
            heard = [
                each for each in (self._question.fd, watch.fileno() if watch else None) if each is not None
            ]
            ready = self._ending.wait(wait_s, also=heard)
            woken = watch.read() if watch and watch.fileno() in ready else Woken()
            self._question.turn(ready)
        if watch:
            watch.close()

    def _beat(self) -> None:
        if trouble := self._loop.root_incident:
            self._pulse.beat(Health.NOT_READY, f"{self._loop.root} cannot be looked at: {trouble}")
        else:
            self._pulse.beat(Health.READY, "finished dumps are brought to the store")


class Warming:
    """Makes the store's client ready while a JVM still writes: with a fifth of a core that takes longer than a second.

    Not before there is a dump, as most daemons never have one, and the client takes more memory than all the rest.
    """

    def __init__(self, warm_up: Callable[[], None]) -> None:
        self._warm_up = warm_up
        self._begun = False

    def begin(self) -> None:
        """Begin, if nobody has; never waits."""
        if not self._begun:
            self._begun = True
            threading.Thread(target=self._run, name="warm up", daemon=True).start()

    def _run(self) -> None:
        try:
            self._warm_up()
        except Exception:  # noqa: BLE001, S110 - the first request fails by the same fault, and tells it
            pass


class StoreQuestion:
    """Asks the store every `every_s`: one that nobody needs just now must not be found broken by the next dump."""

    def __init__(self, s3: S3, loop: UploadLoop, *, every_s: float) -> None:
        self._s3, self._loop, self._every_s = s3, loop, every_s
        self._greeting: StoreProbe | None = None
        self._asked_at = 0.0

    @property
    def fd(self) -> int | None:
        """Give what becomes readable with the answer, None if no question is under way."""
        return self._greeting.fd if self._greeting else None

    def begin(self) -> None:
        """Ask."""
        self._greeting, self._asked_at = StoreProbe(self._s3), time.monotonic()

    def turn(self, ready: list[int]) -> None:
        """Hear the answer if it is `ready`, ask again if it is time, give up on a question that nobody answers."""
        if self._greeting and self._greeting.fd in ready:
            with contextlib.suppress(Unanswered):
                self._loop.note_store(self._greeting.hear())
        waited_s = time.monotonic() - self._asked_at
        if self.fd is None:
            if waited_s >= self._every_s:
                self.begin()
        elif waited_s >= _UNANSWERED_S:
            self.close()
            hint = "check S3_ENDPOINT_URL and network policies; see whether the store itself answers"
            error = f"no answer from {self._s3.bucket} for {_UNANSWERED_S:g} s"
            self._loop.note_store(Unreachable(error, hint=hint))

    def close(self) -> None:
        """End the question that is under way."""
        if self._greeting:
            self._greeting.close()


class WorkerThread(threading.Thread):
    """Brings dumps to the store, one after the other, until the end. However long one takes, the main loop turns."""

    def __init__(self, loop: UploadLoop, ending: Shutdown) -> None:
        super().__init__(name="bring", daemon=True)
        self._loop, self._ending = loop, ending
        self._died_of: BaseException | None = None

    def run(self) -> None:
        """Bring until a stop. What nobody foresaw ends the daemon, not its uploads alone."""
        try:
            while not self._ending.stop.is_set():
                brought = self._loop.bring_next(timeout_s=1.0)
                if brought is None or isinstance(brought, Receipt):
                    self._loop.reclaim()
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self._died_of = error
            self._ending.wake()

    def raise_if_dead(self) -> None:
        """Raise what ended the thread, if anything did."""
        if self._died_of is not None:
            raise self._died_of


def _measure_space(root: str, tell: Tell) -> None:
    try:
        space = space_of(root)
    except OSError:
        return  # the scan tells what is wrong with it
    tell(
        SpaceMeasured(
            path=root,
            free_bytes=space.free_bytes,
            size_bytes=space.total_bytes,
        )
    )
