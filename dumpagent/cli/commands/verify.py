"""`dumpagent verify`: proves that dumps in the store are what was sent, and keeps nothing of them."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import Any

import click

from dumpagent.cli.commands.ls import as_dict
from dumpagent.cli.options import takes
from dumpagent.cli.store import bucket_to_read
from dumpagent.cli.stored import ending_at_once, filters, pause, reads_replica, say, say_broken, shown, size
from dumpagent.errors import DumpagentError
from dumpagent.fetch.check import Integrity, Verified, verify
from dumpagent.fetch.choice import choose, key_in, newest
from dumpagent.fetch.listing import find_objects, look_at
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.settings import S3, Replica
from dumpagent.store.protocol import Store
from dumpagent.terminal import progress

_COLOURS = {Integrity.INTACT: "green", Integrity.DAMAGED: "red", Integrity.UNPROVEN: "yellow"}


@click.command("verify", short_help="Prove that dumps in the store are what was sent.")
@click.argument("parts", metavar="[PART]...", nargs=-1)
@click.option("--latest", is_flag=True, help="the newest of those that the filters leave")
@click.option("--all", "everything", is_flag=True, help="all that the filters leave")
@filters
@click.option("--json", "as_json", is_flag=True, help="print one line of JSON per dump")
@reads_replica
@takes(S3, Replica, without=["storage_class"], hidden=[Replica])
def command(
    s3: S3,
    replica: Replica,
    from_replica: bool,
    parts: tuple[str, ...],
    latest: bool,
    everything: bool,
    wanted: Wanted,
    as_json: bool,
) -> None:
    """Read dumps in the store to their end and say whether they are what was sent, and whole heap dumps.

    PART is a dump's key, its path, or a part of the path that no other dump has. Nothing is kept on this machine.

    intact: the checksum is that of the file on the node. damaged: it is not, or a dump that was complete is not now.
    unproven: nobody left a checksum. Exit code: 0 if all are intact, 1 if any is not.
    """
    if sum(map(bool, (parts, latest, everything))) != 1:
        raise click.UsageError("name dumps (`dumpagent ls` shows them), or --latest, or --all")
    s3, store = bucket_to_read(s3, replica if from_replica else None)
    good = True
    with ending_at_once(said=""):
        dumps = _chosen(store, s3, parts, wanted, latest=latest)
        for dump in dumps:
            good = _verify(store, dump, as_json=as_json) and good
    sys.exit(0 if good else 1)


def _chosen(
    store: Store, s3: S3, parts: tuple[str, ...], wanted: Wanted, *, latest: bool
) -> list[StoredDump]:
    if latest:
        return [newest(store, wanted, prefix=s3.prefix, now=time.time())]
    if parts:
        named = [dataclasses.replace(wanted, part=key_in(part, s3.bucket)) for part in parts]
        return [choose(store, each, prefix=s3.prefix, now=time.time()) for each in named]
    objects = find_objects(store, wanted, prefix=s3.prefix)
    with progress.tally("reading metadata", len(objects)) as looked:
        found = look_at(store, objects, wanted, prefix=s3.prefix, looked=looked)
    if not found:
        say(f"nothing to verify in {store.name}")
    return found


def _verify(store: Store, dump: StoredDump, *, as_json: bool) -> bool:
    """Verify one dump, print what came of it, and say whether it is intact."""
    try:
        with progress.bar(shown(dump.path), dump.size_bytes) as advance:
            verified = verify(store, dump, pause=pause, advance=advance, broken=say_broken)
    except DumpagentError as error:
        if as_json:
            click.echo(json.dumps({**as_dict(dump), "integrity": None, "reason": str(error)}))
        say(f"dumpagent: {shown(str(error))}")
        if error.hint:
            say(f"  hint: {shown(error.hint)}")
        return False
    click.echo(json.dumps(_as_dict(verified)) if as_json else describe(verified, colours=sys.stdout.isatty()))
    return verified.integrity is Integrity.INTACT


def describe(verified: Verified, *, colours: bool) -> str:
    """Give the line that a person reads."""
    word = verified.integrity.value.ljust(8)
    if colours:
        word = click.style(word, fg=_COLOURS[verified.integrity], bold=True)
    heap = "complete" if verified.complete else f"not a complete dump: {verified.walked.reason}"
    return f"{word}  {shown(verified.dump.path)}  {size(verified.dump.size_bytes)}, {verified.reason}; {heap}"


def _as_dict(verified: Verified) -> dict[str, Any]:
    return {
        **as_dict(verified.dump),
        "integrity": verified.integrity.value,
        "reason": verified.reason,
        "found_crc32": f"{verified.crc32:08x}",
        "complete": verified.complete,
        "records": verified.walked.reason,
    }
