"""The command line: one file per command; each is imported only when it is called."""

from __future__ import annotations

import importlib
import sys
from typing import NoReturn

import click

from dumpagent import __version__
from dumpagent.cli.examples import epilog
from dumpagent.errors import BadSettings, DumpagentError
from dumpagent.gc_pause import uncollected

# Name -> (module below dumpagent.cli.commands, line in `dumpagent --help`). The module has a click command named `command`.
COMMANDS: dict[str, tuple[str, str]] = {
    "mount": ("mount", "Keep the volume bound to the node's dump directory (daemon)."),
    "wait": ("wait", "Block until the volume is mounted and ready (init container)."),
    "check": ("check", "Exec probe: is the daemon of this container ready, or alive?"),
    "upload": (
        "upload",
        "Find finished heap dumps below DUMP_ROOT and upload them to S3 (daemon, or --once).",
    ),
    "memory-watch": (
        "memory_watch",
        "Tell of containers killed for their memory without a dump (daemon).",
    ),
    "trigger": ("trigger", "Ask a running JVM of a pod on this node for a heap dump."),
    "inspect": (
        "inspect",
        "Say whether a heap dump is complete, who wrote it and why, and what is in it.",
    ),
    "analyze": ("analyze", "Say who holds the memory in a heap dump, exactly."),
    "diff": ("diff", "Say what grew from one heap dump to the next."),
    "rechunk": ("rechunk", "Rewrite a .hprof.gz so that Eclipse MAT opens it without unpacking."),
    "ls": ("ls", "List the dumps in the store."),
    "get": ("get", "Fetch a dump from the store: resumable, checked, never over another file."),
    "verify": ("verify", "Prove that dumps in the store are what was sent; keep nothing."),
    "export": ("export", "Write the list of all dumps as NDJSON or Parquet, for DuckDB or Athena."),
    "prune": ("prune", "Delete old dumps from the bucket, with credentials of its own."),
    "reindex": ("reindex", "Write the index entries that dumps in the store lack."),
    "cleanup": ("cleanup", "Remove the node's empty dump directory (uninstalling)."),
    "config": ("config", "Show every setting, its value and where it comes from."),
    "doctor": ("doctor", "Say what keeps dumps from the store, and what to do."),
    "gather": ("gather", "Collect what support needs: no dumps, no secrets."),
}


class LazyGroup(click.Group):
    """A click group that imports a command's module when the command is called, so that each pays for itself alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with uncollected(for_ever=True):
            command = importlib.import_module(f"dumpagent.cli.commands.{COMMANDS[cmd_name][0]}").command
        assert isinstance(command, click.Command)  # noqa: S101 - a programming error, not a user's
        if "Examples:" not in (command.help or ""):
            command.epilog = command.epilog or epilog(cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1) if args else []
            if near:
                raise click.UsageError(
                    f"No such command {args[0]!r}. Did you mean {near[0]!r}?", ctx
                ) from error
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except DumpagentError as error:
            fail(error)


def fail(error: DumpagentError) -> NoReturn:
    """Print what happened and what to do on stderr; leave with 2 for bad settings, else 1."""
    from dumpagent.dumps.text import printable  # a store's answer may be in it

    click.echo(f"dumpagent: {printable(str(error), lines=True)}", err=True)
    if error.hint:
        click.echo(f"  hint: {printable(error.hint, lines=True)}", err=True)
    sys.exit(2 if isinstance(error, BadSettings) else 1)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dumpagent")
def cli() -> None:
    """Java heap dumps on Kubernetes nodes: never lost, and in S3 seconds after the JVM has finished them.

    Every option can also be set by the environment variable that its help names; the option wins.
    """
