"""Every event that there is, for the docs."""

from __future__ import annotations

from dumpagent.observe.events import (
    Event,
    companions,
    daemon,
    dumps,
    memory,
    mount,
    notify,
    replica,
    store,
    trigger,
    volume,
)

CATALOGUE: dict[str, type[Event]] = {
    kind.name: kind
    for module in (daemon, dumps, companions, store, replica, volume, mount, notify, memory, trigger)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Event) and "level" in vars(kind)
}
