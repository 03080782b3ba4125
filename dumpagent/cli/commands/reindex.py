"""`dumpagent reindex`: gives the dumps in a bucket the index entries that they lack."""

from __future__ import annotations

import sys
import threading

import click

from dumpagent.cli.options import takes
from dumpagent.cli.store import open_store
from dumpagent.cli.stored import ending_at_once, say, shown
from dumpagent.errors import Refused
from dumpagent.fetch.stored import is_dump_path
from dumpagent.index.rebuild import find_missing, write_missing
from dumpagent.settings import S3
from dumpagent.terminal import progress


@click.command("reindex", short_help="Write the index entries that dumps in the store lack.")
@click.option("--dry-run", is_flag=True, help="say how many entries are missing; write none")
@takes(S3, without=["storage_class"])
def command(s3: S3, dry_run: bool) -> None:
    """Write an index entry for each dump in the store that has none: dumps of agents before 0.2, or a lost index.

    Asks about each such dump once, and never replaces or deletes anything. Needs s3:ListBucket, s3:GetObject and
    s3:PutObject below `.dumpagent/index/`. Can be stopped and run again.

    \b
    Example:
      dumpagent reindex --dry-run
    """
    store = open_store(s3, tell=lambda *_event, **_fields: None, stop=threading.Event())
    failed: list[str] = []

    def refused(key: str, error: Refused) -> None:
        if not failed:
            say(f"dumpagent: {shown(key)}: {shown(str(error))}")
        failed.append(key)

    with ending_at_once(said="run it again: it goes on with those that are missing"):
        missing = find_missing(store, prefix=s3.prefix, is_dump=is_dump_path)
        say(f"{missing.indexed:,} dumps have an index entry, {len(missing.objects):,} objects have none")
        if dry_run or not missing.objects:
            return
        with progress.tally("writing the index", len(missing.objects)) as done:
            written = write_missing(store, missing.objects, prefix=s3.prefix, done=done, refused=refused)
    say(
        f"{written:,} entries written, {len(missing.objects) - written - len(failed):,} objects are no dumps of an agent"
    )
    if failed:
        say(
            f"{len(failed):,} objects could not be read or indexed; these credentials need s3:GetObject and s3:PutObject"
        )
    sys.exit(1 if failed else 0)
