"""The memory watch as a daemon: one look every MEMORY_WATCH_INTERVAL until a stop."""

from __future__ import annotations

from collections.abc import Callable

from dumpagent.kernel.shutdown import Shutdown
from dumpagent.observe.events import Tell
from dumpagent.observe.events.memory import CgroupsReadable, CgroupsUnreadable
from dumpagent.observe.incident import Incident
from dumpagent.probes.heartbeat import Health, Pulse


def watch(
    step: Callable[[], int], *, interval_s: float, pulse: Pulse, shutdown: Shutdown, tell: Tell
) -> None:
    """Call `step` until a stop; one that cannot read the cgroups is told, and tried again."""
    unreadable = Incident(tell, CgroupsUnreadable, CgroupsReadable)
    while not shutdown.stop.is_set():
        try:
            watched = step()
        except OSError as error:
            unreadable.failed(
                "cgroups", CgroupsUnreadable(error=error.strerror or str(error), path=error.filename)
            )
            pulse.beat(Health.NOT_READY, f"the pods' memory cannot be read: {error}")
        else:
            unreadable.ended_for("cgroups", CgroupsReadable())
            pulse.beat(Health.READY, f"{watched} pods are watched")
        shutdown.wait(interval_s)
    pulse.stop()
