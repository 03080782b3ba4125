"""`dumpagent wait`: blocks an init container until the volume is mounted and ready."""

from __future__ import annotations

import sys

import click

from dumpagent.cli.options import takes
from dumpagent.mount import waiting as room
from dumpagent.mount.start import resolve
from dumpagent.settings import Volume, WaitLimit


@click.command("wait", short_help="Block until the volume is mounted and ready (init container).")
@takes(Volume, WaitLimit)
def command(volume: Volume, waiting: WaitLimit) -> None:
    """Block until the volume is mounted at DUMP_ROOT and .ready stands there; exit 1 after the timeout.

    For init containers of the uploader and of applications. Says at once and every 30 s what is missing, and goes on
    the moment that it is there.
    """
    root = resolve(volume.dump_root, "DUMP_ROOT")
    wait = room.Waiting(root, lambda line: click.echo(f"dumpagent wait: {line}", err=True))
    ended = wait.wait(waiting.timeout_s)
    if ended is room.Waited.READY:
        return
    how = (
        f"not ready after {waiting.timeout_s:g} s"
        if ended is room.Waited.TIMED_OUT
        else "stopped by a signal"
    )
    click.echo(f"dumpagent wait: {how}: {wait.reason}", err=True)
    sys.exit(1)
