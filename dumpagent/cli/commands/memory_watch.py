"""`dumpagent memory-watch`: tells of containers that the kernel killed before a heap dump."""

from __future__ import annotations

import dataclasses
import functools
import os
import socket
import sys
import threading

import click

from dumpagent import __version__
from dumpagent.cli.listeners import Audience, notify, serve_metrics
from dumpagent.cli.node_pods import pods_of
from dumpagent.cli.options import takes
from dumpagent.errors import BadSettings, Refused
from dumpagent.kernel.shutdown import Shutdown
from dumpagent.memory_watch.cgroups import hierarchy
from dumpagent.memory_watch.daemon import watch
from dumpagent.memory_watch.pods import list_pods
from dumpagent.memory_watch.watcher import MemoryWatcher
from dumpagent.notify.api_server import ApiServer, Ask, address_of
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events.daemon import AgentStarted, AgentStopped
from dumpagent.observe.log import log_to
from dumpagent.probes.heartbeat import Heartbeat, Pulse
from dumpagent.settings import Logging, MemoryWatch, Metrics, Notifying, Place, Runtime, Volume

_BEAT_BELIEVED_S = 120.0


@click.command(
    "memory-watch", short_help="Tell of containers killed for their memory without a dump (daemon)."
)
@takes(
    MemoryWatch,
    Volume,
    Place,
    Runtime,
    Metrics,
    Notifying,
    Logging,
    without=("owner_pattern", "pod_events", "notify_store_after_s", "presign_for_s"),
)
@click.option(
    "--once", is_flag=True, help="List the containers that would be killed so, then exit: 1 if there are any."
)
def command(
    watching: MemoryWatch,
    volume: Volume,
    place: Place,
    runtime: Runtime,
    metrics: Metrics,
    notifying: Notifying,
    logging: Logging,
    once: bool,
) -> None:
    """Watch the memory of this node's pods, and tell when the kernel kills a container that left no heap dump.

    Tells the cause as far as the last minute shows it, and what to change: in the log, as a metric, to NOTIFY_URL, and
    as an Event on the pod. Names beforehand the containers whose heap does not fit below their limit. Reads the node's
    /sys/fs/cgroup and the names in DUMP_ROOT; needs no privilege. Runs until SIGTERM or Ctrl-C.
    """
    host = socket.gethostname()
    place = dataclasses.replace(place, node_name=place.node_name or host, pod_name=place.pod_name or host)
    audience = Audience(log_to(None, logging))
    root = volume.dump_root.rstrip("/") or "/"
    if once:
        sys.exit(_list_tight(place.node_name, root))
    try:
        tree = hierarchy(watching.cgroup_root)
    except OSError as error:
        raise BadSettings(
            f"CGROUP_ROOT is {watching.cgroup_root!r}: {error.strerror or error}",
            hint="mount the node's /sys/fs/cgroup there, read-only, as manifests/memory-watch does",
        ) from error
    ask = _api_server() if watching.ask_api_server else None
    pulse = Pulse(Heartbeat(runtime.runtime_dir, "memory-watch"), audience, good_for_s=_BEAT_BELIEVED_S)
    watcher = MemoryWatcher(
        tree,
        dump_root=root,
        list_pods=functools.partial(list_pods, ask, place.node_name, root) if ask else None,
        tell=audience,
    )
    shutdown = Shutdown()
    barrier = Barrier(audience)
    with shutdown:
        _listen(
            metrics,
            notifying,
            root=root,
            outbox=f"{runtime.runtime_dir}/outbox",
            place=place,
            pulse=pulse,
            audience=audience,
            shutdown=shutdown,
            barrier=barrier,
        )
        if ask:
            _tell_pods(ask, place, audience, shutdown, barrier)
        pulse.begin()
        settings = {
            "interval_seconds": watching.interval_s,
            "api_server": bool(ask),
            "cgroup_version": tree.version,
        }
        audience(
            AgentStarted(mode="memory-watch", version=__version__, node=place.node_name, settings=settings)
        )
        watch(watcher.step, interval_s=watching.interval_s, pulse=pulse, shutdown=shutdown, tell=audience)
        audience(AgentStopped(mode="memory-watch"))


def _list_tight(node: str, root: str) -> int:
    from dumpagent.doctor.finding import Result
    from dumpagent.doctor.memory import memory
    from dumpagent.doctor.table import show

    pods = pods_of(node, root)
    if pods is None:
        raise Refused(
            "pods cannot be listed from here: no token of a service account",
            hint="run it in a pod of manifests/memory-watch, with MEMORY_WATCH_PODS=true",
        )
    findings = list(memory(pods))
    show(findings)
    return 0 if all(finding.result is Result.OK for finding in findings) else 1


def _api_server() -> Ask:
    return ApiServer(address_of(os.environ)).ask


def _listen(
    metrics: Metrics,
    notifying: Notifying,
    *,
    root: str,
    outbox: str,
    place: Place,
    pulse: Pulse,
    audience: Audience,
    shutdown: Shutdown,
    barrier: Barrier,
) -> None:
    if metrics.metrics_port:
        from dumpagent.observe.metrics.memory import MemoryWatchMetrics

        serve_metrics(
            metrics, MemoryWatchMetrics(), pulse=pulse, audience=audience, shutdown=shutdown, barrier=barrier
        )
    if notifying.notify_url:
        from dumpagent.notify.commands import StoreAddress
        from dumpagent.notify.message import Sender

        owned = threading.Event()
        owned.set()  # nobody else writes to this outbox: the pod is the only one of its node
        sender = Sender(place.node_name, place.cluster_name, root, StoreAddress(""))
        notify(notifying, audience, shutdown, sender=sender, outbox=outbox, owned=owned, barrier=barrier)


def _tell_pods(ask: Ask, place: Place, audience: Audience, shutdown: Shutdown, barrier: Barrier) -> None:
    from dumpagent.memory_watch.kill_events import KillEvents

    events = KillEvents(ask, node=place.node_name, agent=place.pod_name, tell=audience)
    audience.join(events)
    events.start(shutdown.stop.is_set, barrier=barrier)
