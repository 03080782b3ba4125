"""`dumpagent cleanup`: the last step of an uninstallation, on each node."""

from __future__ import annotations

import signal
import sys

import click

from dumpagent.cli.options import takes
from dumpagent.mount.removal import remove_node_directory
from dumpagent.mount.start import resolve
from dumpagent.secrets import hide
from dumpagent.settings import Mounting

_TRY_EVERY_S = 5
_ENDS = {signal.SIGTERM, signal.SIGINT}


@click.command("cleanup", short_help="Remove the node's empty dump directory (uninstalling).")
@click.option("--stay", is_flag=True, help="Wait for SIGTERM afterwards, as a pod of a DaemonSet has to.")
@takes(Mounting, without=("source", "check_interval_s", "hung_after_s", "quiet_s", "unmount_on_exit"))
def command(mounting: Mounting, stay: bool) -> None:
    """Remove the directory MOUNT_TARGET from the node once it is empty; wait until it is.

    Dumps are never removed: as long as the directory holds one, or a volume is mounted there, the command says so and
    tries again every 5 s. Exit code 1 when it is ended before.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    target = resolve(mounting.target, "MOUNT_TARGET")
    said = ""
    while why := remove_node_directory(target):
        if why != said:
            click.echo(f"dumpagent cleanup: {hide(why)}", err=True)
            said = why
        if signal.sigtimedwait(_ENDS, _TRY_EVERY_S):
            sys.exit(1)
    click.echo(f"dumpagent cleanup: {target} is gone from this node")
    if stay:
        signal.sigwait(_ENDS)
