"""Upload mode as a daemon: the main thread scans, a second thread uploads, a child process probes the store.

With a replica, a third thread uploads to it, and a fourth frees space, since both may have to wait for the replica.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable
from typing import Protocol

from dumpagent.errors import DumpagentError, Unreachable
from dumpagent.kernel.flock import FileLock
from dumpagent.kernel.owned import BUSY
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.kernel.volume import space_of
from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import ChildRefused, ChildStarted, DrainBegan, DrainCut, DrainEnded
from dumpagent.observe.events.volume import OtherAgentFound, OtherAgentGone, SpaceMeasured
from dumpagent.observe.incident import Incident
from dumpagent.probes.heartbeat import Health, Pulse
from dumpagent.settings import S3, Replica, StoreChecking, Watching
from dumpagent.store.s3.probe import StoreProbe, Unanswered
from dumpagent.upload.keeping.deletion import restore_hidden
from dumpagent.upload.ledger import AnotherAgent, Ledger
from dumpagent.upload.loop import UploadLoop
from dumpagent.upload.replica.threads import ReplicaThreads, WorkerThread
from dumpagent.upload.volume.watch import Woken, open_watch

GRACE_S = 3.0  # a pod is killed after its grace period; what is under way then goes on at the next start
_LOCK_RETRY_S = 5.0
_LEAST_RECHECK_S = 0.05
_FAULT_WAIT_S = 1.0
_UNANSWERED_S = 120.0  # the SDK's own tries end before, where anything answers at all
_BEAT_EVERY_S = 10.0
_OTHERS_EVERY_S = 1.0
_SCAN_AGAIN_S = 5.0  # where more happened than was told: any tenant can make that so
_DRAIN_STEP_S = 0.2
_DRAIN_HINT = "see why they are not stored, in the lines above; give SHUTDOWN_WAIT and terminationGracePeriodSeconds more"
_REPLICA_PROBED_AFTER_S = 10.0  # a probe costs half a CPU second, which the first dump may want
_FORK_HINT = "raise the pod's pids limit (podPidsLimit of the kubelet) or its memory limit"


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
        store_checking: StoreChecking,
        pulse: Pulse,
        tell: Tell,
        shutdown: Shutdown,
        shutdown_wait_s: float = 0.0,
        replica: Replica | None = None,
    ) -> None:
        shutdown.drains = shutdown_wait_s > 0
        self._drain = Drain(loop, f"{ledger.directory}/{BUSY}", shutdown, tell, most_s=shutdown_wait_s)
        self._loop, self._ledger, self._pulse, self._tell, self._shutdown = (
            loop,
            ledger,
            pulse,
            tell,
            shutdown,
        )
        self._watching = watching
        self._next_scan = self._recheck_s = self._others_at = self._scan_again_at = 0.0
        self._overlooked = False  # a scan that is under way may have passed what nobody told us of
        self._others: set[str] = set()
        self._warming = Warming(warm_up)
        every_s = store_checking.store_check_interval_s
        self._probings = [StoreProbing(s3, loop, tell, every_s=every_s)]
        self._replica_threads: ReplicaThreads | None = None
        if loop.replica and replica:
            self._probings.append(StoreProbing(replica, loop.replica, tell, every_s=every_s))
            self._replica_threads = ReplicaThreads(loop.replica, loop.free_space, shutdown)

    def run(self) -> None:
        """Scan and upload until a stop. Raises what ended the thread that uploads, if anything did."""
        with contextlib.ExitStack() as stack:
            self._own_the_volume(stack)
            self._probings[0].begin()
            for probing in self._probings[1:]:
                probing.begin_in(_REPLICA_PROBED_AFTER_S)
            worker = WorkerThread(self._loop, self._shutdown)
            if not self._shutdown.stop.is_set() and self._ledger.is_owned.is_set():
                worker.start()
                self._scan_until_the_end(worker)
            self._shutdown.stop.set()
            self._loop.backlog.wake()
            for probing in self._probings:
                probing.close()
            if worker.is_alive():
                worker.join(GRACE_S)
            if self._replica_threads:
                self._replica_threads.end(GRACE_S)
            self._pulse.stop()

    def _own_the_volume(self, stack: contextlib.ExitStack) -> None:
        """Wait until no other agent works on this volume, then read its state, for as long as `stack` is open."""
        other = Incident(self._tell, OtherAgentFound, OtherAgentGone)
        while not self._shutdown.stop.is_set() and not self._shutdown.draining.is_set():
            try:
                stack.enter_context(self._ledger.owned())
                if self._loop.replica:
                    stack.enter_context(self._loop.replica.ledger.owned())
                restore_hidden(self._loop.root, self._ledger.directory, barrier=self._loop.barrier)
                break
            except AnotherAgent as error:
                other.failed("lock", OtherAgentFound(error=str(error), hint=error.hint))
                self._pulse.beat(Health.NOT_READY, str(error))
                self._shutdown.wait(_LOCK_RETRY_S)
        other.ended_for("lock", OtherAgentGone())

    def _scan_until_the_end(self, worker: WorkerThread) -> None:
        barrier = self._loop.barrier
        watch = open_watch(self._loop.root, tell=self._tell, skip=frozenset({self._ledger.directory}))
        self._loop.watch_with(watch)
        woken = Woken()
        while not self._shutdown.stop.is_set():
            found = woken
            barrier.run("scan", lambda found=found: self._scan(found))  # type: ignore[misc]
            if woken.begun or self._loop.counts.pending:
                self._warming.begin()
            worker.raise_if_dead()
            if self._replica_threads:
                self._replica_threads.begin()
            self._beat()
            if self._drain.step(scanning=self._loop.is_scanning):
                self._next_scan = 0.0
            fds = [*(probing.fd for probing in self._probings), watch.fileno() if watch else None]
            ready = self._shutdown.wait(self._wait_s(), also=[fd for fd in fds if fd is not None])
            woken = Woken()
            if watch and watch.fileno() in ready:
                try:
                    woken = watch.read()
                except Exception as error:  # noqa: BLE001 - what it would have said, a scan finds
                    barrier.note("read wake-ups", error)
                    woken = Woken(everything=True)
            for probing in self._probings:
                barrier.run("probe the store", functools.partial(probing.step, ready))
        if watch:
            watch.close()

    def _scan(self, woken: Woken) -> None:
        """Scan the volume if it is time to, else judge what the wake-ups name and what waits."""
        self._recheck_s = _FAULT_WAIT_S  # unless this ends well
        rechecks: list[float | None] = []
        self._overlooked |= woken.everything
        if self._is_time_to_scan():
            rechecks.append(self._loop.look())
            if not self._loop.root_incident:
                _measure_space(self._loop.root, self._tell)
        if (relpaths := woken.relpaths | self._due_others(woken)) or woken.created:
            rechecks.append(self._loop.look_at(relpaths, created=woken.created))
        if not rechecks:
            rechecks.append(self._loop.look_again())
        recheck_s = min((each for each in rechecks if each is not None), default=None)
        self._recheck_s = _BEAT_EVERY_S if recheck_s is None else max(recheck_s, _LEAST_RECHECK_S)

    def _is_time_to_scan(self) -> bool:
        now = time.monotonic()
        again = self._overlooked and now >= self._scan_again_at and not self._loop.is_scanning
        if not again and now < self._next_scan:
            return False
        if not self._loop.is_scanning:
            self._overlooked, self._scan_again_at = False, now + _SCAN_AGAIN_S
        self._next_scan = now + self._watching.watch_interval_s
        return True

    def _due_others(self, woken: Woken) -> set[str]:
        """Give the files that have no dump's name and may be finished: a second's at a time, as logs are written often."""
        self._others |= woken.others
        if not self._others or time.monotonic() < self._others_at:
            return set()
        self._others_at = time.monotonic() + _OTHERS_EVERY_S
        due, self._others = self._others, set()
        return due

    def _wait_s(self) -> float:
        now = time.monotonic()
        others_s = max(_LEAST_RECHECK_S, self._others_at - now) if self._others else _BEAT_EVERY_S
        again_s = max(_LEAST_RECHECK_S, self._scan_again_at - now) if self._overlooked else _BEAT_EVERY_S
        at_most_s = _DRAIN_STEP_S if self._shutdown.draining.is_set() else _BEAT_EVERY_S
        return min(self._next_scan - now, at_most_s, self._recheck_s, others_s, again_s)

    def _beat(self) -> None:
        if trouble := self._loop.root_incident:
            self._pulse.beat(Health.NOT_READY, f"{self._loop.root} cannot be looked at: {trouble}")
        else:
            self._pulse.beat(Health.READY, "finished dumps are uploaded")


class Drain:
    """Lets the dumps on the volume be stored after SIGTERM, for `most_s` at most, then stops the daemon.

    While a finished dump is not stored, the file `busy` is locked: a volume manager that is to unmount waits for that.
    """

    def __init__(self, loop: UploadLoop, busy: str, shutdown: Shutdown, tell: Tell, *, most_s: float) -> None:
        self._loop, self._shutdown, self._tell, self._most_s = loop, shutdown, tell, most_s
        self._busy = FileLock(busy)
        self._since: float | None = None

    def step(self, *, scanning: bool) -> bool:
        """Stop the daemon if it is time to. Says whether a last scan is to begin."""
        counts = self._loop.counts
        pending = counts.pending
        with contextlib.suppress(OSError):  # no file system for locks, or a manager looks at it just now
            self._busy.set(pending > counts.writing)
        if not self._shutdown.draining.is_set() or self._shutdown.stop.is_set():
            return False
        now = time.monotonic()
        if self._since is None:
            self._since = now
            self._tell(DrainBegan(mode="upload", most_seconds=self._most_s, pending=pending))
            return True
        seconds = now - self._since
        if (pending or scanning) and seconds < self._most_s:
            return False
        if pending:
            self._tell(DrainCut(mode="upload", seconds=seconds, pending=pending, hint=_DRAIN_HINT))
        else:
            self._tell(DrainEnded(mode="upload", seconds=seconds))
        self._shutdown.stop.set()
        return False


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
            try:
                threading.Thread(target=self._run, name="warm up", daemon=True).start()
            except RuntimeError:
                pass  # the pod's pids limit: the first request makes the client ready

    def _run(self) -> None:
        try:
            self._warm_up()
        except Exception:  # noqa: BLE001, S110 - the first request fails by the same fault, and tells it
            pass


class NotesStore(Protocol):
    """Who takes note of how a store answered."""

    def note_store(self, error: DumpagentError | None) -> None: ...


class StoreProbing:
    """Probes the store every `every_s`: a store that fails while no dump is there is told before the next dump."""

    def __init__(self, s3: S3 | Replica, noted_by: NotesStore, tell: Tell, *, every_s: float) -> None:
        self._s3, self._noted_by, self._every_s = s3, noted_by, every_s
        self._forking = Incident(tell, ChildRefused, ChildStarted)
        self._probe: StoreProbe | None = None
        self._asked_at = 0.0

    @property
    def fd(self) -> int | None:
        """Give what becomes readable with the answer, None if no probe is under way."""
        return self._probe.fd if self._probe else None

    def begin(self) -> None:
        """Start a probe; where no process can be had, that is told and tried again when the next one is due."""
        self._asked_at = time.monotonic()
        try:
            self._probe = StoreProbe(self._s3)
        except OSError as error:
            self._forking.failed(
                "probe",
                ChildRefused(error=error.strerror or str(error), path=self._s3.bucket, hint=_FORK_HINT),
            )
        else:
            self._forking.ended_for("probe", ChildStarted(path=self._s3.bucket))

    def begin_in(self, seconds: float) -> None:
        """Have the first probe started after so long."""
        self._asked_at = time.monotonic() - self._every_s + seconds

    def step(self, ready: list[int]) -> None:
        """Take the answer if it is `ready`, probe again if it is time, give up on a probe that nobody answers."""
        if self._probe and self._probe.fd in ready:
            with contextlib.suppress(Unanswered):
                self._noted_by.note_store(self._probe.hear())
        waited_s = time.monotonic() - self._asked_at
        if self.fd is None:
            if waited_s >= self._every_s:
                self.begin()
        elif waited_s >= _UNANSWERED_S:
            self.close()
            hint = "check S3_ENDPOINT_URL and network policies; see whether the store itself answers"
            error = f"no answer from {self._s3.bucket} for {_UNANSWERED_S:g} s"
            self._noted_by.note_store(Unreachable(error, hint=hint))

    def close(self) -> None:
        """End the probe that is under way."""
        if self._probe:
            self._probe.close()


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
