"""`dumpagent wait`: blocks an init container until the volume is mounted and ready."""

from __future__ import annotations

import sys

import click

from dumpagent.cli.options import takes
from dumpagent.mount import waiting as room
from dumpagent.mount.own_directory import make_own_directory
from dumpagent.mount.start import resolve
from dumpagent.settings import Place, Volume, WaitLimit


@click.command("wait", short_help="Block until the volume is mounted and ready (init container).")
@takes(Volume, WaitLimit, Place, without=("cluster_name", "owner_pattern"))
def command(volume: Volume, waiting: WaitLimit, place: Place) -> None:
    """Block until the volume is mounted at DUMP_ROOT and .ready stands there; exit 1 after the timeout.

    With POD_NAMESPACE and POD_NAME (downward API), and run as the application's user, it then makes the pod's own
    directory DUMP_ROOT/<namespace>_<pod>, mode 0700, and refuses one that another user owns.

    For init containers of the uploader and of applications. Says at once and every 30 s what is missing, and goes on
    the moment that it is there.
    """
    root = resolve(volume.dump_root, "DUMP_ROOT")
    wait = room.VolumeWait(root, lambda line: click.echo(f"dumpagent wait: {line}", err=True))
    ended = wait.wait(waiting.timeout_s)
    if ended is room.Waited.READY:
        if place.pod_namespace and place.pod_name:
            click.echo(
                f"dumpagent wait: {make_own_directory(root, place.pod_namespace, place.pod_name)}", err=True
            )
        return
    how = (
        f"not ready after {waiting.timeout_s:g} s"
        if ended is room.Waited.TIMED_OUT
        else "stopped by a signal"
    )
    click.echo(f"dumpagent wait: {how}: {wait.reason}", err=True)
    sys.exit(1)
