"""`dumpagent get`: fetches one dump from the store."""

from __future__ import annotations

import dataclasses
import errno
import os
import time

import click

from dumpagent.cli.options import takes
from dumpagent.cli.store import bucket_to_read
from dumpagent.cli.stored import (
    ending_at_once,
    filters,
    pause,
    reads_replica,
    say,
    shown,
    size,
    timestamp,
    warn_if_not_whole,
)
from dumpagent.errors import DumpagentError
from dumpagent.fetch.choice import choose, key_in, newest
from dumpagent.fetch.companions import companion_name, companions_of
from dumpagent.fetch.download import Fetch, Fetched, fetch, target_of
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.settings import S3, Replica
from dumpagent.store.protocol import Store
from dumpagent.terminal import progress

_DISK_HINTS = {
    errno.ENOSPC: "make room and run it again: it goes on; or name another disk with --output",
    errno.EDQUOT: "your quota is used up: make room and run it again, or name another place with --output",
    errno.EFBIG: "this file system takes no file of that size: name another disk with --output",
    errno.ENAMETOOLONG: "name the file with --output",
    errno.ENOENT: "make the directory first",
}


@click.command("get", short_help="Fetch a dump from the store.")
@click.argument("part", default="")
@click.option("--latest", is_flag=True, help="the newest of those that PART and the filters leave")
@filters
@click.option(
    "-o",
    "--output",
    metavar="PATH",
    help="the file to make, or a directory for it  [default: the dump's own name, here]",
)
@click.option("--gunzip", is_flag=True, help="unpack a compressed dump (Eclipse MAT opens .hprof.gz too)")
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="the files beside the dump too (error files, GC logs, flight recordings), into the directory <file>.companions",
)
@click.option("--force", is_flag=True, help="replace a file that stands there")
@reads_replica
@takes(S3, Replica, without=["storage_class"], hidden=[Replica])
def command(
    s3: S3,
    replica: Replica,
    from_replica: bool,
    part: str,
    latest: bool,
    wanted: Wanted,
    output: str | None,
    gunzip: bool,
    everything: bool,
    force: bool,
) -> None:
    """Fetch one dump: PART is its key, its path, or a part of the path that no other dump has.

    Goes on where it was cut off: run the same command again. The dump gets its name once its checksum is right; the
    path is then printed on stdout. Never replaces a file without --force. Read-only credentials suffice.
    """
    if not part and not latest:
        raise click.UsageError("name a dump (`dumpagent ls` shows them), or --latest for the newest")
    s3, store = bucket_to_read(s3, replica if from_replica else None)
    wanted = dataclasses.replace(wanted, part=key_in(part, s3.bucket))
    with ending_at_once(said="run the same command again: it goes on from here"):
        dump = (newest if latest else choose)(store, wanted, prefix=s3.prefix, now=time.time())
        warn_if_not_whole(dump)
        wish = Fetch(dump, target_of(dump, output, gunzip=gunzip), force=force, gunzip=gunzip)
        fetched = _fetch(store, wish)
        where = f"from {dump.node}, " if dump.node else ""
        say(f"{shown(dump.path)} ({where}{timestamp(dump.when)}): {_outcome(fetched)}")
        click.echo(fetched.path)
        for companion in companions_of(store, dump, prefix=s3.prefix) if everything else ():
            found = StoredDump(store.look(companion.key) or companion, companion.key)
            target = f"{fetched.path}.companions/{companion_name(companion)}"
            os.makedirs(os.path.dirname(target), exist_ok=True)
            beside = _fetch(store, Fetch(found, target, force=force, gunzip=False))
            say(f"{shown(companion_name(companion))}: {_outcome(beside)}")
            click.echo(beside.path)


def _fetch(store: Store, wish: Fetch) -> Fetched:
    try:
        return fetch(store, wish, bar=_bar, note=lambda text: say(f"note: {shown(text)}"), pause=pause)
    except OSError as error:
        raise DumpagentError(
            f"{shown(str(error.filename or wish.target))}: {error.strerror or error}",
            hint=_DISK_HINTS.get(error.errno or 0, "check the place; --output names another one"),
        ) from error


def _bar(title: str, total_bytes: int, done_bytes: int) -> progress.Drawn:
    return progress.bar(shown(title), total_bytes, done_bytes)


def _outcome(fetched: Fetched) -> str:
    if fetched.there:
        return "it is here already, with the right checksum"
    resumed = f", {size(fetched.resumed_bytes)} of it fetched before" if fetched.resumed_bytes else ""
    checked = "checksum verified" if fetched.checked else "its size is right; nobody left a checksum with it"
    return f"{size(fetched.size_bytes)}{resumed}, {checked}"
