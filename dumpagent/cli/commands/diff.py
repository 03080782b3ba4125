"""`dumpagent diff`: what grew from one heap dump to the next."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from dumpagent.cli.commands.analyze import NO_DUMP, Reading, ending, memory_bytes, reading, stop
from dumpagent.cli.options import takes
from dumpagent.cli.pending import Means
from dumpagent.settings import S3

if TYPE_CHECKING:
    from dumpagent.analyze.growth.measure import Measured, Ruler

_JSON_ROWS, _TEXT_ROWS = 200, 15


@click.command("diff", short_help="Say what grew from one heap dump to the next.")
@click.argument("dumps", metavar="[OLD] NEW", nargs=-1, required=True)
@click.option("--previous", is_flag=True, help="OLD is the dump before NEW of the same workload in the store")
@click.option("--json", "as_json", is_flag=True, help="print what grew as one line of JSON (docs/analyze.md)")
@click.option("--rows", type=click.IntRange(1, 10_000), help="rows of each table  [default: 15; JSON: 200]")
@click.option(
    "--memory",
    metavar="SIZE",
    help="memory that may be used, as 6GiB  [default: the cgroup's limit, else what is free]",
)
@click.option(
    "--spill",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False, writable=True),
    help="put into files in DIR what does not fit into memory; slower",
)
@takes(S3, without=["storage_class"], when_asked=True)
def command(
    s3: Callable[[], S3], dumps: tuple[str, ...], previous: bool, as_json: bool, rows: int | None,
    memory: str | None, spill: str | None,
) -> None:  # fmt: skip
    """Compare two heap dumps: what grew, by class and by the static or field that holds it.

    OLD and NEW are files, or keys or paths of dumps in the store; these are fetched into temporary files in TMPDIR
    first. With --previous give NEW alone, a dump in the store.

    Exit code: 0 done, 2 no heap dump or bad use, 3 failed.
    """
    with ending(said="nothing is kept"):
        if len(dumps) != (1 if previous else 2):
            raise click.UsageError("give OLD and NEW, or NEW alone with --previous")
        try:
            from dumpagent.analyze.growth.compare import compare
            from dumpagent.analyze.growth.report import growth_as_json, growth_as_text
        except ModuleNotFoundError as error:
            stop(
                NO_DUMP, f"{error.name} is not installed", "install it with: pip install 'dumpagent[analyze]'"
            )
        means = Means(memory_bytes(memory), spill)
        old_dump, new_dump = _with_previous(dumps[0], s3) if previous else dumps
        # Both are opened first: a name that is wrong is told before minutes of work.
        with reading(old_dump, s3, means) as before, reading(new_dump, s3, means) as after:
            new = _measured(after, spill)
            old = _measured(before, spill, like=new.ruler)
        growth = compare(old, new, rows=rows or (_JSON_ROWS if as_json else _TEXT_ROWS))
        click.echo(
            growth_as_json(growth) if as_json else growth_as_text(growth, style=click.style), nl=as_json
        )
    sys.exit(0)


def _measured(found: Reading, spill: str | None, *, like: Ruler | None = None) -> Measured:
    from dumpagent.analyze.growth.measure import measure
    from dumpagent.analyze.opened import NoHeap

    try:
        return measure(found.opened, found.known, found.budget, step=found.step, spill=spill, like=like)
    except NoHeap as error:
        raise NoHeap(f"{found.known.name}: {error}", hint=error.hint) from error


def _with_previous(new: str, s3: Callable[[], S3]) -> tuple[str, str]:
    """Give the dump before `new` of its workload, and `new`, each as s3://BUCKET/KEY. Raises DumpagentError."""
    from dumpagent.cli.store import open_store_to_read
    from dumpagent.fetch.choice import choose, key_in
    from dumpagent.fetch.previous import previous
    from dumpagent.fetch.stored import Wanted

    if os.path.lexists(new):
        raise click.UsageError(f"{new} is a file: --previous needs a dump in the store; or give OLD and NEW")
    settings = s3()
    store = open_store_to_read(settings)
    now = time.time()
    found = choose(store, Wanted(part=key_in(new, settings.bucket)), prefix=settings.prefix, now=now)
    before = previous(store, found, prefix=settings.prefix, now=now)
    return f"s3://{settings.bucket}/{before.key}", f"s3://{settings.bucket}/{found.key}"
