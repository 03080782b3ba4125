"""`dumpagent get`: fetches one dump from the store."""

from __future__ import annotations

import dataclasses
import errno
import os
import shlex
import sys
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
from dumpagent.fetch.download import Fetch, Fetched, fetch, is_harmless, targets_of
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.settings import S3, Replica
from dumpagent.store.protocol import Store
from dumpagent.terminal import progress
from dumpagent.units import GIB

_DISK_HINTS = {
    errno.ENOSPC: "make room and run it again: it goes on; or name another disk with --output",
    errno.EDQUOT: "your quota is used up: make room and run it again, or name another place with --output",
    errno.EFBIG: "this file system takes no file of that size: name another disk with --output",
    errno.ENAMETOOLONG: "name the file with --output",
    errno.ENOENT: "make the directory first",
}

_USUAL_RATIO = 4  # of a compressed dump


@click.command("get", short_help="Fetch dumps from the store.")
@click.argument("parts", metavar="[PART]...", nargs=-1)
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
    parts: tuple[str, ...],
    latest: bool,
    wanted: Wanted,
    output: str | None,
    gunzip: bool,
    everything: bool,
    force: bool,
) -> None:
    """Fetch dumps: PART is a dump's key, its path, or a part of the path that no other dump has.

    Goes on where it was cut off: run the same command again. A dump gets its name once its checksum is right; the
    path is then printed on stdout. Never replaces a file without --force. Read-only credentials suffice.

    Of several dumps one that fails costs no other; --output is then a directory. Exit code: 0, or 1 if one failed.
    """
    if not parts and not latest:
        raise click.UsageError("name a dump (`dumpagent ls` shows them), or --latest for the newest")
    if latest and len(parts) > 1:
        raise click.UsageError("--latest is the newest of one PART and the filters: name one, or none")
    if len(parts) > 1 and output and not os.path.isdir(output):
        raise click.UsageError(f"{output} is not a directory, and several dumps need one")
    s3, store = bucket_to_read(s3, replica if from_replica else None)
    asked = [dataclasses.replace(wanted, part=key_in(part, s3.bucket)) for part in parts or ("",)]
    with ending_at_once(said="run the same command again: it goes on from here"):
        find = newest if latest else choose
        dumps = [find(store, each, prefix=s3.prefix, now=time.time()) for each in asked]
        targets = targets_of(dumps, output, gunzip=gunzip)
        failed = 0
        for dump, target in zip(dumps, targets, strict=True):
            try:
                _get(store, s3, Fetch(dump, target, force=force, gunzip=gunzip), everything=everything)
            except DumpagentError as error:
                if len(dumps) == 1:
                    raise
                failed += 1
                say(
                    f"dumpagent: {shown(str(error))}"
                    + (f"\n  hint: {shown(error.hint)}" if error.hint else "")
                )
    if failed:
        say(f"{failed} of {len(dumps)} dumps were not fetched")
        sys.exit(1)


def _get(store: Store, s3: S3, wish: Fetch, *, everything: bool) -> None:
    """Fetch one dump, and with `everything` what lies beside it; print the paths."""
    dump = wish.dump
    warn_if_not_whole(dump)
    fetched = _fetch(store, wish)
    where = f"from {dump.node}, " if dump.node else ""
    say(f"{shown(dump.path)} ({where}{timestamp(dump.when)}): {_outcome(fetched)}")
    click.echo(fetched.path)
    for line in next_steps(fetched.path, _heap_bytes(dump, fetched)):
        say(line)
    for companion in companions_of(store, dump, prefix=s3.prefix) if everything else ():
        name = companion_name(companion)
        if not is_harmless(name):
            say(
                f"note: {shown(companion.key)} is left out: it would make a hidden file, or steers a terminal"
            )
            continue
        found = StoredDump(store.look(companion.key) or companion, companion.key)
        target = f"{fetched.path}.companions/{name}"
        os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
        beside = _fetch(store, Fetch(found, target, force=wish.force, gunzip=False))
        say(f"{shown(name)}: {_outcome(beside)}")
        click.echo(beside.path)


def _heap_bytes(dump: StoredDump, fetched: Fetched) -> int:
    """Give the size of the uncompressed dump; of one that its JVM compressed about that."""
    if not fetched.path.endswith(".gz"):
        return fetched.size_bytes
    told = dump.original_size_bytes or 0
    return told if told > fetched.size_bytes else _USUAL_RATIO * fetched.size_bytes


def next_steps(path: str, heap_bytes: int) -> list[str]:
    """Give the commands that look into the fetched dump, as they can be pasted into a shell.

    Source: Eclipse MAT, "Memory Analyzer Configuration": -vmargs -Xmx; about the dump's size, and a quarter more.
    """
    gib = max(1, -(-heap_bytes * 5 // 4 // GIB))
    quoted = shlex.quote(path)
    return [
        "next:",
        f"  dumpagent inspect --histogram {quoted}",
        f"  ParseHeapDump.sh {quoted} org.eclipse.mat.api:suspects -vmargs -Xmx{gib}g    # Eclipse MAT; or File > Open Heap Dump",
    ]


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
