"""The turn of mount mode: see what has come, decide, act; wait for the next reason to."""

from __future__ import annotations

import errno
import re
import select
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from dumpagent.errors import Refused
from dumpagent.kernel.children import reap
from dumpagent.kernel.forked import Descriptors, ForkedCall, Say
from dumpagent.kernel.mount import make_private
from dumpagent.kernel.mountinfo import open_mountinfo
from dumpagent.mount import hints
from dumpagent.mount.backend import Backend, is_busy, withdraw_ready
from dumpagent.mount.bind import clear, settle
from dumpagent.mount.decide import decide, wake_at
from dumpagent.mount.prober import Prober
from dumpagent.mount.rescue.rescuer import Rescuer
from dumpagent.mount.state import (
    Action,
    Beat,
    BindFailed,
    BindPace,
    Bound,
    Child,
    Cleared,
    ClearFailed,
    Do,
    Failing,
    Forked,
    ForkRefused,
    GiveUp,
    Happening,
    MountState,
    Over,
    Proved,
    RescueEnded,
    StartTest,
    TableNotRead,
    TableRead,
    TellEvent,
    Times,
    Trouble,
    TurnEnds,
    WaitEnded,
)
from dumpagent.mount.table import Table, Wakeups
from dumpagent.observe.events import Tell
from dumpagent.observe.events.daemon import (
    ChildRefused,
    ChildStarted,
    DrainBegan,
    DrainCut,
    DrainEnded,
    HeartbeatFailed,
    HeartbeatRecovered,
)
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
    MountReleased,
    RemountFailed,
    RemountRecovered,
    TableReadable,
    TableUnreadable,
)
from dumpagent.observe.incident import F, Incident, R
from dumpagent.probes.heartbeat import Health, Heartbeat
from dumpagent.probes.status_server import StatusServer
from dumpagent.settings import Mounting

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
_SLACK_S = 10.0  # how late a loaded node may let us be before we count as dead
# A look at the table that changes nothing may cost a fortieth of a core, however often others mount and however long
# the table is.
_LOOKS_SHARE = 40
_LOOP_COST_S = 0.0001
_WITHDRAW_S = 1.0
_BUSY, _BUSY_EVERY_S = "busy", 0.3
_DRAIN_HINT = "see the uploader's log on this node; give SHUTDOWN_WAIT and terminationGracePeriodSeconds more"


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
        shutdown_wait_s: float = 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.status, self.shutdown_wait_s = settings, status, shutdown_wait_s
        self.source, self.target = settings.source, settings.target
        self.table = Table(self.target, self.source)
        self.heartbeat, self.tell, self.monotonic = heartbeat, tell, monotonic
        self.mountinfo_fd = open_mountinfo()
        self.wakeups = Wakeups(self.mountinfo_fd, monotonic=monotonic)
        self.wakeups.open()
        name = re.sub(r"[^A-Za-z0-9._-]", "_", node)[:100]
        ours = Descriptors(lambda: (lock_fd, *self.wakeups.fds, *(status.fds if status else ())))
        self.prober = Prober(self.source, self.target, name, settings.hung_after_s, ours)
        self.rescuer = Rescuer(self.source, self.target, name, settings.quiet_s, tell, ours, monotonic)
        self.incidents: dict[Trouble, Incident[Any, Any]] = {
            Trouble.REMOUNT: self._incident(RemountFailed, RemountRecovered),
            Trouble.TABLE: self._incident(TableUnreadable, TableReadable),
            Trouble.FORK: self._incident(ChildRefused, ChildStarted),
        }
        self.backends = {kind.value: self._incident(began, BackendRecovered) for kind, began in _BAD.items()}
        self.beating = self._incident(HeartbeatFailed, HeartbeatRecovered)
        now = monotonic()
        self.state = MountState(Times(settings.check_interval_s), pace=BindPace(at=now), found_at=now)

    def _incident(self, began: type[F], ended: type[R]) -> Incident[F, R]:
        return Incident(self.tell, began, ended, monotonic=self.monotonic)

    @property
    def ready(self) -> bool:
        """Say whether the target shows the volume and writes through it are proven to reach it."""
        return self.state.ready

    @property
    def beaten(self) -> str:
        """Give the reason that was told to the probes last."""
        return self.state.beaten

    def run(self) -> None:
        """Keep the mount until a signal ends it. Raises Refused when the volume cannot be used at the start."""
        self._leave_peer_group()
        try:
            while not self.wakeups.stopping:
                self.turn()
                self.wait()
            if self.settings.unmount_on_exit:
                self._wait_for_uploads()
        finally:
            self.stop()

    def turn(self) -> None:
        """React to whatever has come: the target first, since every millisecond of it can cost a dump's beginning."""
        self._see(WaitEnded(self.wakeups.table_changed()))
        if answer := self.prober.collect(self.monotonic()):
            self._see(Proved(*answer))
        if self.rescuer.collect():
            self._see(RescueEnded(self.rescuer.waiting))
        self._see(TurnEnds(testing=self.prober.fd is not None, rescuing=self.rescuer.fd is not None))
        if self.status:
            self.status.turn()
        reap()

    def _see(self, seen: Happening) -> None:
        """Decide about `seen` and about all that comes of it."""
        ahead = deque([seen])
        while ahead:
            now = self.monotonic()
            self.state, actions = decide(
                ahead.popleft(), self.state, now, source=self.source, target=self.target
            )
            ahead.extend(came for action in actions if (came := self._perform(action)) is not None)

    def _perform(self, action: Action) -> Happening | None:
        match action:
            case Do():
                return self._do(action)
            case StartTest():
                return self._start(
                    Child.WRITE_TEST,
                    lambda: self.prober.start(through_target=action.through_target, now=self.monotonic()),
                )
            case TellEvent():
                self.tell(action.event(**action.fields))
            case Failing():
                incident = self._incident_of(action)
                incident.failed(action.kind, incident.began(error=action.error, **action.fields))
            case Over(silent=True):
                self._incident_of(action).forget(action.kind)
            case Over():
                incident = self._incident_of(action)
                incident.ended_for(action.kind, incident.ended(**action.fields))
            case Beat():
                self._beat(action)
            case GiveUp():
                raise Refused(action.message, hint=action.hint)
        return None

    def _incident_of(self, action: Failing | Over) -> Incident[Any, Any]:
        return (
            self.backends[action.kind]
            if action.trouble is Trouble.BACKEND
            else self.incidents[action.trouble]
        )

    def _do(self, action: Do) -> Happening | None:
        match action:
            case Do.READ_TABLE:
                return self._read_table()
            case Do.BIND:
                return self._bind()
            case Do.CLEAR:
                try:
                    return Cleared(clear(self.target))
                except OSError as error:
                    return ClearFailed(error.strerror or str(error))
            case Do.START_RESCUE:
                return self._start(Child.RESCUE, self.rescuer.start)
            case Do.ABANDON_TEST:
                self.prober.abandon()
            case Do.ABANDON_RESCUE:
                self.rescuer.abandon()
        return None

    def _read_table(self) -> Happening:
        before = time.thread_time()
        try:
            return TableRead(self.table.read(self.mountinfo_fd))
        except OSError as error:
            return TableNotRead(error.strerror or str(error))
        finally:
            self.wakeups.ignore_table_for((time.thread_time() - before + _LOOP_COST_S) * _LOOKS_SHARE)

    def _bind(self) -> Happening:
        try:
            return Bound(settle(self.target, self.source, lambda: self.table.read(self.mountinfo_fd)))
        except OSError as error:
            return BindFailed(error.strerror or str(error), hints.REMOUNT)
        except Refused as error:
            return BindFailed(str(error), error.hint or hints.REMOUNT)

    def _start(self, child: Child, start: Callable[[], None]) -> Happening:
        try:
            start()
        except OSError as error:
            return ForkRefused(child, error.strerror or str(error))
        return Forked(child)

    def _beat(self, beat: Beat) -> None:
        health = Health.READY if beat.ready else Health.NOT_READY
        try:
            self.heartbeat.beat(health, beat.reason, self.settings.check_interval_s + _SLACK_S)
        except OSError as error:
            self.beating.failed(
                "heartbeat", HeartbeatFailed(error=error.strerror or str(error), path=self.heartbeat.path)
            )
        else:
            self.beating.ended_for("heartbeat", HeartbeatRecovered(path=self.heartbeat.path))

    def wait(self) -> None:
        """Wait for the next reason to do something."""
        until = wake_at(
            self.state,
            testing=self.prober.fd is not None,
            rescuing=self.rescuer.fd is not None,
            overdue_at=self.prober.deadline,
        )
        status_fd = self.status.fd if self.status else None
        self.wakeups.wait(until, [self.prober.fd, self.rescuer.fd, status_fd])

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
            self.incidents[Trouble.REMOUNT].failed(
                "target", RemountFailed(error=text, path=self.target, hint=hints.REMOUNT)
            )
        finally:
            self.heartbeat.stop()  # whatever failed: this daemon was not killed
            if self.status:
                self.status.close()

    def _wait_for_uploads(self) -> None:
        """Keep the mount while the uploader has dumps that are not stored, for `shutdown_wait_s` at most."""
        most_s, since, told = self.shutdown_wait_s, self.monotonic(), False
        while (waited_s := self.monotonic() - since) < most_s and not self.wakeups.impatient:
            if not self._ask(lambda say: say({_BUSY: is_busy(self.source)}), most_s - waited_s).get(_BUSY):
                if told:
                    self.tell(DrainEnded(mode="mount", seconds=waited_s))
                return
            if not told:
                self.tell(DrainBegan(mode="mount", most_seconds=most_s))
                told = True
            self.turn()
            time.sleep(_BUSY_EVERY_S)
        if told:
            self.tell(DrainCut(mode="mount", seconds=waited_s, hint=_DRAIN_HINT))

    def _ask(self, work: Callable[[Say], None], most_s: float) -> dict[str, object]:
        """Give what a forked child says of the volume within `most_s`; nothing where it hangs or fails."""
        try:
            call = ForkedCall.start(work, now=self.monotonic(), close=self.prober.close)
        except OSError:
            return {}
        poll = select.poll()
        poll.register(call.fd, select.POLLIN)
        poll.poll(most_s * 1000)
        said = call.read()
        call.abandon()
        return said[-1] if said else {}

    def _withdraw_ready(self) -> None:
        def withdraw(_: Say) -> None:
            withdraw_ready(self.source)

        self._ask(withdraw, _WITHDRAW_S)

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
                    hint=hints.NO_MOUNTS,
                ) from error
            if error.errno != errno.EINVAL:  # a plain directory, which has no peers
                raise
