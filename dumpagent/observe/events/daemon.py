"""What both daemons tell of themselves."""

from __future__ import annotations

from collections.abc import Mapping

from dumpagent.observe.events import Event, Failure, Recovery


class AgentStarted(Event, level="info"):
    """The daemon runs; its settings stand beside it."""

    mode: str
    version: str
    node: str
    settings: Mapping[str, object]  # shown as fields of their own

    def fields(self) -> dict[str, object]:
        values = super().fields()
        del values["settings"]
        return values | dict(self.settings)


class AgentStopped(Event, level="info"):
    """The daemon ended in good order after SIGTERM or SIGINT."""

    mode: str
    unmounted: bool | None = None
    pending: int | None = None
    uploaded: int | None = None


class DrainBegan(Event, level="info"):
    """SIGTERM came: the daemon goes on until the dumps on the volume are stored, for SHUTDOWN_WAIT at most."""

    mode: str
    most_seconds: float
    pending: int | None = None  # `dumpagent mount` knows only that there are some


class DrainEnded(Event, level="info"):
    """Every dump is stored; the daemon stops now."""

    mode: str
    seconds: float


class DrainCut(Event, level="warning"):
    """SHUTDOWN_WAIT is over and dumps are not stored yet; they stay on the volume and are uploaded at the next start."""

    mode: str
    seconds: float
    hint: str
    pending: int | None = None


class AgentKilled(Event, level="warning"):
    """The daemon that ran in this pod before did not end in good order; this one goes on where it was cut."""

    mode: str
    reason: str
    hint: str


class AgentFaulty(Failure, level="error"):
    """A fault of the agent's own; please report the trace. Other dumps go on."""

    step: str
    trace: str
    path: str | None = None


class AgentSound(Recovery, level="info"):
    """A step that failed by a fault of the agent's own works again."""

    step: str
    path: str | None = None


class LibraryWarned(Event, level="warning"):
    """A library (the S3 SDK, its HTTP client) warned of something; told once of each kind."""

    library: str
    reason: str


class MetricsServed(Event, level="info"):
    """/metrics, /healthz and /readyz are answered on METRICS_PORT."""

    port: int
    address: str | None = None


class HeartbeatFailed(Failure, level="error"):
    """RUNTIME_DIR cannot be written: `dumpagent check` will fail."""

    path: str


class HeartbeatRecovered(Recovery, level="info"):
    """RUNTIME_DIR can be written again."""

    path: str


class ChildRefused(Failure, level="error"):
    """No process can be had for the write test, the rescue or the probe of the store: raise the pod's pids limit."""

    path: str


class ChildStarted(Recovery, level="info"):
    """Processes can be had again."""

    path: str
