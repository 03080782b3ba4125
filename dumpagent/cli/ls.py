"""`dumpagent ls`: which dumps the store holds."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from dumpagent.cli.options import takes
from dumpagent.cli.store import open_store_to_read
from dumpagent.cli.stored import ending_at_once, filters, print_table, say, size, timestamp
from dumpagent.fetch.choice import key_in
from dumpagent.fetch.listing import find_objects, look_at
from dumpagent.fetch.stored import StoredDump, Wanted, below
from dumpagent.settings import S3
from dumpagent.terminal import progress


@click.command("ls", short_help="List the dumps in the store.")
@click.argument("part", default="")
@filters
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="NUMBER", help="only the newest so many")
@click.option("--json", "as_json", is_flag=True, help="print one line of JSON per dump")
@takes(S3, without=["storage_class"])
def command(s3: S3, part: str, wanted: Wanted, limit: int | None, as_json: bool) -> None:
    """List the dumps in the store, newest last: when and where each was made, how large, whether it is whole.

    PART is a text that stands in the path of those that are wanted. Objects without metadata of ours are listed too.
    Read-only credentials suffice (s3:ListBucket, s3:GetObject); they come from the AWS SDK's own chain.
    """
    wanted = dataclasses.replace(wanted, part=key_in(part, s3.bucket))
    store = open_store_to_read(s3)
    with ending_at_once(said=""):
        objects = find_objects(store, wanted, prefix=s3.prefix)
        with progress.tally("reading metadata", len(objects)) as looked:
            dumps = look_at(store, objects, wanted, prefix=s3.prefix, limit=limit, looked=looked)
    if as_json:
        for dump in dumps:
            click.echo(json.dumps(as_dict(dump)))
        return
    if not dumps:
        where = f"{store.name} below {below(s3.prefix)}" if below(s3.prefix) else store.name
        say(f"no dumps of that description in {where}" if wanted != Wanted() else f"no dumps in {where}")
        return
    print_table(dumps)
    if progress.on_terminal():
        total = size(sum(dump.size_bytes for dump in dumps))
        say(f"{len(dumps):,} in {store.name}, {total}")


def as_dict(dump: StoredDump) -> dict[str, Any]:
    """Give what is known of the dump as JSON takes it; times are ISO 8601 in UTC, what is not known is null."""
    return {
        "key": dump.key,
        "path": dump.path,
        "application": dump.application,
        "node": dump.node,
        "dump_time": None if dump.dumped is None else timestamp(dump.dumped),
        "stored_time": timestamp(dump.stored.modified),
        "size_bytes": dump.size_bytes,
        "original_size_bytes": dump.original_size_bytes,
        "verdict": dump.verdict,
        "cause": dump.cause,
        "jvm": dump.jvm,
        "crc32": f"{dump.checksum.crc32:08x}" if dump.checksum else None,
        "etag": dump.stored.etag,
        "storage_class": dump.stored.storage_class,
        "metadata": None if dump.stored.metadata is None else dict(dump.stored.metadata),
        "refused": dump.refused,
    }
