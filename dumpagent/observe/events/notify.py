"""What is told of notifications."""

from __future__ import annotations

from dumpagent.observe.events import Event, Failure, Recovery


class NotifyFailed(Failure, level="warning"):
    """NOTIFY_URL takes no message; what is to be told waits in the outbox."""

    waiting: int


class NotifyRecovered(Recovery, level="info"):
    """NOTIFY_URL takes messages again."""


class PodEventMade(Event, level="debug"):
    """POD_EVENTS: the pod that wrote a stored dump has an Event of it."""

    path: str
    namespace: str
    pod: str


class PodEventSkipped(Event, level="debug"):
    """POD_EVENTS: no Event, since it is not certain which pod wrote the dump."""

    path: str
    reason: str
    namespace: str | None = None
    pod: str | None = None


class PodEventFailed(Failure, level="warning"):
    """POD_EVENTS: the API server takes no Event; it is tried again for some minutes, then left out."""

    path: str
    namespace: str
    pod: str
    reason: str | None = None


class PodEventRecovered(Recovery, level="info"):
    """POD_EVENTS: Events can be made again."""

    path: str | None = None
    namespace: str | None = None
    pod: str | None = None
