"""The order of things: look, repair, prove, rescue, say; and wait for the next reason to."""

from __future__ import annotations

import dataclasses
import errno
import re
import select
import time
from collections.abc import Callable

from dumpagent.errors import Refused
from dumpagent.kernel.children import reap
from dumpagent.kernel.forked import Descriptors, ForkedCall, Say
from dumpagent.kernel.mount import make_private
from dumpagent.kernel.mountinfo import open_mountinfo
from dumpagent.mount import hints
from dumpagent.mount.backend import Backend, Proof, withdraw_ready
from dumpagent.mount.bind import clear, settle
from dumpagent.mount.pace import Pace
from dumpagent.mount.prober import Prober
from dumpagent.mount.rescuer import Rescuer
from dumpagent.mount.table import Shows, Table, View
from dumpagent.mount.wakeups import Wakeups
from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import ChildRefused, ChildStarted, HeartbeatFailed, HeartbeatRecovered
from dumpagent.observe.events.mount import (
    BackendDead,
    BackendFailure,
    BackendFull,
    BackendHung,
    BackendMissing,
    BackendReadOnly,
    BackendRecovered,
    BackendRefusing,
    BackendStale,
    BackendUnknown,
    MountAdopted,
    MountBound,
    MountLoss,
    MountLost,
    MountReadOnly,
    MountReleased,
    MountRestored,
    MountSetAside,
    MountStacked,
    MountUnshared,
    MountWrong,
    RemountFailed,
    RemountRecovered,
    TableReadable,
    TableUnreadable,
    WriteProven,
    WriteTested,
)
from dumpagent.observe.incident import F, Incident, R
from dumpagent.probes.heartbeat import Health, Heartbeat
from dumpagent.probes.status_server import StatusServer
from dumpagent.settings import Mounting

_LOST: dict[Shows, type[MountLoss]] = {
    Shows.NOTHING: MountLost,
    Shows.ANOTHER: MountWrong,
    Shows.STACKED: MountStacked,
    Shows.READ_ONLY: MountReadOnly,
}
_BAD: dict[Backend, type[BackendFailure]] = {
    Backend.FULL: BackendFull,
    Backend.READ_ONLY: BackendReadOnly,
    Backend.REFUSING: BackendRefusing,
    Backend.DEAD: BackendDead,
    Backend.MISSING: BackendMissing,
    Backend.STALE_TARGET: BackendStale,
    Backend.HUNG: BackendHung,
    Backend.UNKNOWN: BackendUnknown,
}
# The volume answers: applications are better off with it than with the node's disk.
_FIT_TO_BIND = {Backend.WRITABLE, Backend.FULL, Backend.REFUSING, Backend.STALE_TARGET}
# Every write fails at once: applications are better off with the node's disk. A hung volume is not among them: who
# waits for it has lost nothing, and a JVM that merges its parts by name must find them where it wrote them.
_SET_ASIDE = {Backend.DEAD, Backend.READ_ONLY}
_UNBIND = {*_SET_ASIDE, Backend.STALE_TARGET}
_STRIKES = 2  # a single error may pass; taking the volume away in the middle of a dump does not

_LONGEST_BACKOFF_S = 30.0
_RESCUE_AGAIN_S = 1.0
_SLACK_S = 10.0  # how late a loaded node may let us be before we count as dead
# A look at the table that changes nothing may cost a fortieth of a core, however often others mount and however long
# the table is.
_LOOKS_SHARE = 40
_LOOP_COST_S = 0.0001
_WITHDRAW_S = 1.0


class Keeper:
    """Keeps the volume bound to the target until SIGTERM or SIGINT. `lock_fd` makes us the node's only one.

    Nothing in here asks the volume itself: that is what the prober's and the rescuer's children are for.
    """

    def __init__(
        self,
        settings: Mounting,
        *,
        node: str,
        lock_fd: int,
        heartbeat: Heartbeat,
        tell: Tell,
        status: StatusServer | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.status = status
        self.source, self.target = settings.source, settings.target
        self.table = Table(self.target, self.source)
        self.heartbeat, self.tell, self.monotonic = heartbeat, tell, monotonic
        self.mountinfo_fd = open_mountinfo()
        self.wakeups = Wakeups(self.mountinfo_fd, monotonic=monotonic)
        self.wakeups.open()
        name = re.sub(r"[^A-Za-z0-9._-]", "_", node)[:100]
        ours = Descriptors(lambda: (lock_fd, *self.wakeups.fds, *(status.fds if status else ())))
        self.prober = Prober(
            self.source, self.target, f".dumpagent-write-test.{name}", settings.hung_after_s, ours
        )
        self.rescuer = Rescuer(self.source, self.target, name, settings.quiet_s, tell, ours, monotonic)
        self.remount = self._incident(RemountFailed, RemountRecovered)
        self.unreadable = self._incident(TableUnreadable, TableReadable)
        self.forking = self._incident(ChildRefused, ChildStarted)
        self.beating = self._incident(HeartbeatFailed, HeartbeatRecovered)
        self.backend = {kind: self._incident(event, BackendRecovered) for kind, event in _BAD.items()}
        self.pace = Pace(burst=100, per_s=10)

        self.view: View | None = None
        self.found: Shows | None = None  # what was told last; None at the start
        self.found_at = monotonic()
        self.proof: Proof | None = None  # None: nothing is known of the volume yet
        self.aside = False
        self.strikes = self.failures = self.bad_proofs = 0
        self.changes = 0  # of what is mounted at the target; the kernel uses the ids of mounts again
        self.asked = 0  # how many there were when the open question was asked
        self.beaten = ""
        self.look_at = self.repair_at = self.prove_at = self.rescue_at = self.beat_at = monotonic()

    def _incident(self, began: type[F], ended: type[R]) -> Incident[F, R]:
        return Incident(self.tell, began, ended, monotonic=self.monotonic)

    def run(self) -> None:
        """Keep the mount until a signal ends it. Raises Refused when the volume cannot be used at the start."""
        self._leave_peer_group()
        try:
            while not self.wakeups.stopping:
                self.turn()
                self.wait()
        finally:
            self.stop()

    def turn(self) -> None:
        """React to whatever has come: the target first, since every millisecond of it can cost a dump's beginning."""
        now = self.monotonic()
        if self.wakeups.table_changed() or now >= self.look_at:
            self.look(now)
        self.learn(now)
        if now >= self.prove_at:
            self.ask(now)
        if self.rescuer.collect():
            again_s = _RESCUE_AGAIN_S if self.rescuer.waiting else self.settings.check_interval_s
            self.rescue_at = min(self.rescue_at, now + again_s)
        if now >= self.rescue_at and self.may_rescue:
            self.rescue(now)
        self.beat(now)
        if self.status:
            self.status.turn()
        reap()

    @property
    def may_rescue(self) -> bool:
        """Say whether to send a child to the volume now: not two at once, unless one has a long copy to make."""
        return self.ready and self.prober.fd is None and self.rescuer.fd is None

    @property
    def ready(self) -> bool:
        """Say whether the target shows the volume and writes through it are proven to reach it."""
        return self.found is Shows.THE_SOURCE and self.proof is not None and self.proof.ready

    def look(self, now: float) -> None:
        """See what the target shows, and repair it."""
        self.look_at = now + self.settings.check_interval_s
        before = time.thread_time()
        view = self._read_table()
        self.wakeups.ignore_table_for((time.thread_time() - before + _LOOP_COST_S) * _LOOKS_SHARE)
        if view is None:
            return
        if self.view is not None and self.view.identity != view.identity:
            # Another volume lies at the source: what is known is about the old one, which may never answer.
            self.prober.abandon()
            self.rescuer.abandon()
            self.proof, self.aside, self.prove_at = None, False, now
        if view.shows is not Shows.THE_SOURCE or self.view is None or self.view.layers != view.layers:
            self.changes += 1
        self.view = view
        if view.shows is Shows.THE_SOURCE:
            self._told_whole(view, now)
        else:
            self.repair(view, now)

    def _read_table(self) -> View | None:
        try:
            view = self.table.read(self.mountinfo_fd)
        except OSError as error:
            # Unknown is not lost: a second bind on top of a good one would be our own doing.
            self.unreadable.failed(
                "table", TableUnreadable(error=error.strerror or str(error), path=self.target)
            )
            self.look_at = self.monotonic() + min(1.0, self.settings.check_interval_s)
            return None
        self.unreadable.ended_for("table", TableReadable(path=self.target))
        return view

    def repair(self, view: View, now: float) -> None:
        """Make the target show the source, where that is better than what it shows."""
        if view.shows is Shows.READ_ONLY and view.source.file_system_read_only:
            self._told_broken(view, now)
            self.prove_at = min(self.prove_at, now)  # the write test decides what this means
            return
        if self.proof is None or self.proof.backend not in _FIT_TO_BIND or now < self.repair_at:
            if not self.aside:
                self._told_broken(view, now)
            return
        if wait_s := self.pace.wait_s(now):
            text = "somebody else undoes every mount"
            self.remount.failed("target", RemountFailed(error=text, path=self.target, hint=hints.FOUGHT))
            self._again(now, wait_s)
            return
        try:
            self.view = settle(self.target, self.source, lambda: self.table.read(self.mountinfo_fd))
            self.changes += 1
        except (OSError, Refused) as error:
            self._told_broken(view, now)
            text = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            self.remount.failed(
                "target",
                RemountFailed(error=text, path=self.target, hint=getattr(error, "hint", hints.REMOUNT)),
            )
            self.failures += 1
            self._again(now, min(_LONGEST_BACKOFF_S, 0.05 * 2**self.failures))
            return
        # Only now is there time for words: until the bind, dumps went astray.
        self.failures = 0
        self.aside = False
        self.proof = dataclasses.replace(self.proof, through_target=False)
        self.prove_at = now
        self._told_broken(view, now)
        self.remount.ended_for("target", RemountRecovered(path=self.target))
        self._told_whole(self.view, self.monotonic(), bound=True)

    def _again(self, now: float, seconds: float) -> None:
        self.repair_at = now + seconds
        self.look_at = min(self.look_at, self.repair_at)

    def _told_broken(self, view: View, now: float) -> None:
        if self.found is view.shows or (self.found is None and view.shows is Shows.NOTHING):
            return  # told; or there was never a mount to lose
        self.found, self.found_at = view.shows, now
        stack = [f"{mount.fstype} {mount.origin} {mount.device} {mount.root}" for mount in view.stack]
        self.tell(_LOST[view.shows](path=self.target, stack=stack, hint=hints.FINDINGS[view.shows]))

    def _told_whole(self, view: View, now: float, *, bound: bool = False) -> None:
        before, self.found, self.aside = self.found, Shows.THE_SOURCE, False
        if before is Shows.THE_SOURCE:
            return
        if before is None:
            self.tell((MountBound if bound else MountAdopted)(source=self.source, path=self.target))
            if not view.stack[-1].shared:
                self.tell(
                    MountUnshared(
                        path=self.target,
                        hint="mount the node's /mnt with mountPropagation: Bidirectional (and /mnt shared on the node)",
                    )
                )
        else:
            self.tell(MountRestored(finding=before.value, path=self.target, seconds=now - self.found_at))

    def ask(self, now: float) -> None:
        """Have a write test made, through the target if it shows the source."""
        self.prove_at = now + self.settings.check_interval_s
        if self.prober.fd is not None:
            return
        self.asked = self.changes
        try:
            self.prober.start(through_target=self.found is Shows.THE_SOURCE, now=now)
        except OSError as error:
            self.forking.failed(
                "write test", ChildRefused(error=error.strerror or str(error), path=self.source)
            )
            self.prove_at = now + min(1.0, self.settings.check_interval_s)
        else:
            self.forking.ended_for("write test", ChildStarted(path=self.source))

    def rescue(self, now: float) -> None:
        """Have what lies on the node's own disk moved into the volume."""
        self.rescue_at = now + self.settings.check_interval_s  # unless a loss meanwhile makes it sooner
        try:
            self.rescuer.start()
        except OSError as error:
            self.forking.failed("rescue", ChildRefused(error=error.strerror or str(error), path=self.target))
        else:
            self.forking.ended_for("rescue", ChildStarted(path=self.target))

    def learn(self, now: float) -> None:
        """Take the write test's outcome in: told, and acted upon where staying on the target would lose dumps."""
        answer = self.prober.collect(now)
        if answer is None:
            return
        proof, seconds = answer
        if proof.backend is not Backend.HUNG and self.asked != self.changes:
            self.prove_at = now  # it was about a mount that is gone
            return
        first, was_ready, self.proof = self.proof is None, self.ready, proof
        self.tell(
            WriteTested(
                outcome=proof.backend.value,
                step=proof.step,
                seconds=seconds,
                through_target=proof.through_target,
            )
        )
        if first and self.found is None and proof.backend in (Backend.DEAD, Backend.MISSING):
            raise Refused(
                f"MOUNT_SOURCE {self.source!r} cannot be used: {proof.step}: {proof.error}",
                hint="the volume behind it is gone: see the events of its PersistentVolumeClaim, then restart the pod",
            )
        self._tell_of(proof, was_ready=was_ready)
        self._set_aside_or_not(proof)
        self.look_at = now  # it may be fit to bind now
        if proof.backend is Backend.WRITABLE:
            self.bad_proofs = 0
            self.prove_at = now if not proof.ready and self.found is Shows.THE_SOURCE else self.prove_at
            self.rescue_at = now if not was_ready else self.rescue_at
        else:
            self.bad_proofs += 1
            again_s = min(_LONGEST_BACKOFF_S, self.settings.check_interval_s, 2.0**self.bad_proofs / 8)
            self.prove_at = now + again_s

    def _tell_of(self, proof: Proof, *, was_ready: bool) -> None:
        for kind, trouble in self.backend.items():
            if kind is proof.backend:
                hint = hints.BACKENDS[kind]
                event = _BAD[kind](error=proof.error, path=self.source, step=proof.step, hint=hint)
                trouble.failed("volume", event)
            elif proof.backend is Backend.WRITABLE:
                trouble.ended_for("volume", BackendRecovered(path=self.source, finding=kind.value))
            else:
                trouble.forget("volume")  # it turned into another trouble
        if proof.ready and not was_ready:
            self.tell(WriteProven(path=self.target))

    def _set_aside_or_not(self, proof: Proof) -> None:
        self.strikes = self.strikes + 1 if proof.backend in _UNBIND else 0
        if self.strikes < _STRIKES or self.aside:
            return
        try:
            layers = clear(self.target)
        except OSError as error:
            text = error.strerror or str(error)
            self.remount.failed("target", RemountFailed(error=text, path=self.target, hint=hints.REMOUNT))
            return
        self.changes += 1
        if proof.backend in _SET_ASIDE:
            self.aside = True
            if layers:
                self.found, self.found_at = Shows.NOTHING, self.monotonic()
                self.tell(
                    MountSetAside(
                        path=self.target,
                        finding=proof.backend.value,
                        error=proof.error,
                        hint=hints.BACKENDS[proof.backend],
                    )
                )

    def beat(self, now: float) -> None:
        """Leave the verdict where the probes read it, when it has changed and at every tick."""
        reason = self._why()
        if reason == self.beaten and now < self.beat_at:
            return
        self.beaten, self.beat_at = reason, now + self.settings.check_interval_s
        try:
            self.heartbeat.beat(
                Health.READY if self.ready else Health.NOT_READY,
                reason,
                self.settings.check_interval_s + _SLACK_S,
            )
        except OSError as error:
            self.beating.failed(
                "heartbeat", HeartbeatFailed(error=error.strerror or str(error), path=self.heartbeat.path)
            )
        else:
            self.beating.ended_for("heartbeat", HeartbeatRecovered(path=self.heartbeat.path))

    def _why(self) -> str:
        shows = self.found.value if self.found else "nothing yet"
        if self.ready:
            return "writes through the target reach the volume"
        if self.proof is None:
            return f"the target shows {shows}, the volume was not tested yet"
        if self.proof.backend is Backend.WRITABLE:
            return f"the target shows {shows}, no write through it is proven yet"
        return f"the target shows {shows}, the volume is {self.proof.backend.value} ({self.proof.step}: {self.proof.error})"

    def wait(self) -> None:
        """Wait for the next reason to do something."""
        times = [self.look_at, self.beat_at]
        if self.prober.fd is None:
            times.append(self.prove_at)
        elif self.prober.deadline is not None:
            times.append(self.prober.deadline)
        if self.may_rescue:
            times.append(self.rescue_at)
        status_fd = self.status.fd if self.status else None
        self.wakeups.wait(min(times), [self.prober.fd, self.rescuer.fd, status_fd])

    def stop(self) -> None:
        """End in good order within two seconds, whatever hangs: nothing here waits for the volume for longer."""
        hung = self.prober.overdue
        self.prober.abandon()
        self.rescuer.abandon()
        try:
            if self.settings.unmount_on_exit and self.wakeups.stopping:
                if not hung:
                    self._withdraw_ready()
                self.tell(MountReleased(path=self.target, layers=clear(self.target)))
        except OSError as error:
            text = error.strerror or str(error)
            self.remount.failed("target", RemountFailed(error=text, path=self.target, hint=hints.REMOUNT))
        finally:
            self.heartbeat.stop()  # whatever failed: this daemon was not killed
            if self.status:
                self.status.close()

    def _withdraw_ready(self) -> None:
        def withdraw(_: Say) -> None:
            withdraw_ready(self.source)

        errand = ForkedCall.start(withdraw, now=self.monotonic(), close=self.prober.close)
        poll = select.poll()
        poll.register(errand.fd, select.POLLIN)
        poll.poll(_WITHDRAW_S * 1000)
        errand.abandon()

    def _leave_peer_group(self) -> None:
        """Keep what is mounted at the target from appearing at the source too, where both share a peer group (crun).

        The first mount(2) of all, so it is here that the kernel says that it allows none. Raises Refused then.
        """
        try:
            make_private(self.source)
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES):
                raise Refused(
                    f"the kernel refuses mount(2) in this container, though it has CAP_SYS_ADMIN: {error.strerror}",
                    hint="run it privileged and outside of user namespaces (rootless, hostUsers: false); then no seccomp or AppArmor profile is in the way",
                ) from error
            if error.errno != errno.EINVAL:  # a plain directory, which has no peers
                raise
