"""`dumpagent mount`: keeps the volume bound to the node's dump directory."""

from __future__ import annotations

import dataclasses
import os
import socket

import click

from dumpagent import __version__
from dumpagent.cli.options import takes
from dumpagent.errors import Refused
from dumpagent.mount.keeper import Keeper
from dumpagent.mount.start import lock_node, refuse_what_cannot_work, resolve
from dumpagent.observe.events.daemon import AgentStarted, AgentStopped
from dumpagent.observe.log import log_to, tell_all
from dumpagent.probes.heartbeat import Heartbeat, tell_of_one_that_was_killed
from dumpagent.probes.status_server import StatusServer
from dumpagent.settings import Draining, Logging, Metrics, Mounting, Place, Runtime


@click.command("mount", short_help="Keep the volume bound to the node's dump directory (daemon).")
@takes(Mounting, Draining, Runtime, Metrics, Place, Logging, without=("cluster_name", "owner_pattern"))
def command(
    mounting: Mounting, draining: Draining, runtime: Runtime, metrics: Metrics, place: Place, logging: Logging
) -> None:
    """Keep the volume at MOUNT_SOURCE bound to the node's dump directory at MOUNT_TARGET.

    Binds at once when the mount is lost, proves that writes arrive, keeps .ready on the volume while they do, and
    moves into it what was written on the node's own disk meanwhile. Runs until SIGTERM or Ctrl-C. Needs a privileged
    container with the node's /mnt at /host/mnt (mountPropagation: Bidirectional).
    """
    mounting = dataclasses.replace(
        mounting,
        source=resolve(mounting.source, "MOUNT_SOURCE"),
        target=resolve(mounting.target, "MOUNT_TARGET"),
    )
    tell = log_to(None, logging)
    try:
        refuse_what_cannot_work(mounting.source, mounting.target)
        lock_fd = lock_node(mounting.target)
    except OSError as error:
        raise Refused(
            f"cannot look at the mounts: {error}", hint=f"see that {error.filename} is there"
        ) from error
    heartbeat = Heartbeat(runtime.runtime_dir, "mount", mounting.target)
    tell_of_one_that_was_killed(heartbeat, tell)
    heartbeat.open()
    status: StatusServer | None = None
    if metrics.metrics_port:
        from dumpagent.cli.status import open_status
        from dumpagent.observe.metrics.mount import MountMetrics

        counted = MountMetrics()
        counted.add_process()
        tell = tell_all(tell, counted)
        status = open_status(
            metrics,
            metrics=counted.text,
            why_not_live=lambda: "",  # the loop that serves is the loop that works
            why_not_ready=lambda: "" if keeper.ready else keeper.beaten,
            tell=tell,
        )
    node = place.node_name or socket.gethostname()
    tell(AgentStarted(mode="mount", version=__version__, node=node, settings=dataclasses.asdict(mounting)))
    keeper = Keeper(
        mounting,
        node=node,
        lock_fd=lock_fd,
        heartbeat=heartbeat,
        tell=tell,
        status=status,
        shutdown_wait_s=draining.shutdown_wait_s,
    )
    keeper.run()
    tell(AgentStopped(mode="mount", unmounted=mounting.unmount_on_exit))
    os.close(lock_fd)
