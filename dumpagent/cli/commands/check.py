"""`dumpagent check` with its help and options; the plain words are answered by dumpagent.check, without click."""

from __future__ import annotations

import sys

import click

from dumpagent.check import report
from dumpagent.cli.options import takes
from dumpagent.settings import Runtime


@click.command("check", short_help="Exec probe: is the daemon of this container ready, or alive?")
@click.argument("question", type=click.Choice(["ready", "live"]), default="ready")
@takes(Runtime)
def command(runtime: Runtime, question: str) -> None:
    """Say whether the daemon of this container is ready (or alive): exit code 0, or 1 and one line on stderr.

    ready: the daemon's own verdict is fresh and good, the volume is mounted, and .ready stands.
    live: the daemon's loop turns; for `dumpagent mount` also: the volume is mounted.

    Never blocks on a hung volume. Use it without options in probes: then it costs little more than a bare Python.
    """
    sys.exit(report(question, runtime.runtime_dir))
