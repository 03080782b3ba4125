"""`dumpagent ls`: which dumps the store holds."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import click

from dumpagent.cli.options import takes
from dumpagent.cli.store import bucket_to_read
from dumpagent.cli.stored import (
    ending_at_once,
    filters,
    pause,
    print_table,
    reads_replica,
    say,
    size,
    timestamp,
)
from dumpagent.dumps.keys import below
from dumpagent.fetch.catalogue import list_dumps, list_everything
from dumpagent.fetch.choice import key_in
from dumpagent.fetch.companions import companions_of_each
from dumpagent.fetch.listing import find_objects, look_at
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.settings import S3, Replica
from dumpagent.store.protocol import Store, StoredObject
from dumpagent.terminal import progress

_WATCH_S = 5.0
_BESIDE_MOST = 30
_NOT_IN_INDEX = (
    "dumps of other tools and of agents before 0.2 are not in the index: `dumpagent ls --all` shows them"
)


@click.command("ls", short_help="List the dumps in the store.")
@click.argument("part", default="")
@filters
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="NUMBER", help="only the newest so many")
@click.option("--all", "everything", is_flag=True, help="also objects that are not in the index")
@click.option("--watch", is_flag=True, help="go on and print each new dump, until Ctrl-C")
@click.option("--json", "as_json", is_flag=True, help="print one line of JSON per dump")
@reads_replica
@takes(S3, Replica, without=["storage_class"], hidden=[Replica])
def command(
    s3: S3,
    replica: Replica,
    from_replica: bool,
    part: str,
    wanted: Wanted,
    limit: int | None,
    everything: bool,
    watch: bool,
    as_json: bool,
) -> None:
    """List the dumps in the store, newest last: when and where each was made, how large, whether it is whole.

    PART is a text that stands in the path of those that are wanted. The list comes from the index that the uploader
    writes: one request for a thousand dumps. A bucket without an index is listed object by object.

    Read-only credentials suffice (s3:ListBucket, s3:GetObject); they come from the AWS SDK's own chain.

    Files beside a dump (error files, GC logs, flight recordings) stand below it with a +, for the newest thirty.

    \b
    Examples:
      dumpagent ls --since 2d
      dumpagent ls --workload shop/checkout --verdict complete -n 5
      dumpagent ls --namespace 'team-*' --json | jq .key
    """
    s3, store = bucket_to_read(s3, replica if from_replica else None)
    wanted = dataclasses.replace(wanted, part=key_in(part, s3.bucket))
    with ending_at_once(said=""):
        dumps, from_index = _find(store, s3, wanted, limit, everything=everything)
        _show(dumps, store, s3, wanted, as_json=as_json)
        if from_index and not as_json:
            say(_NOT_IN_INDEX)
        if watch:
            _watch(store, s3, wanted, {dump.key for dump in dumps}, as_json=as_json)


def _find(
    store: Store, s3: S3, wanted: Wanted, limit: int | None, *, everything: bool
) -> tuple[list[StoredDump], bool]:
    """Give the dumps, and whether the index alone told of them."""
    if everything:
        return list_everything(store, wanted, prefix=s3.prefix, limit=limit), False
    found = list_dumps(store, wanted, prefix=s3.prefix, now=time.time(), limit=limit)
    if found is not None:
        return found, True
    objects = find_objects(store, wanted, prefix=s3.prefix)
    with progress.tally("reading metadata", len(objects)) as looked:
        return look_at(store, objects, wanted, prefix=s3.prefix, limit=limit, looked=looked), False


def _show(dumps: list[StoredDump], store: Store, s3: S3, wanted: Wanted, *, as_json: bool) -> None:
    # A request each: of a long list only the newest.
    beside = companions_of_each(store, dumps[-_BESIDE_MOST:], prefix=s3.prefix)
    if as_json:
        for number, dump in enumerate(dumps):
            known = number >= len(dumps) - _BESIDE_MOST
            click.echo(json.dumps(as_dict(dump, beside.get(dump.key, []) if known else None)))
        return
    if not dumps:
        where = f"{store.name} below {below(s3.prefix)}" if below(s3.prefix) else store.name
        say(f"no matching dumps in {where}" if wanted != Wanted() else f"no dumps in {where}")
        return
    print_table(dumps, beside)
    if progress.on_terminal():
        total = size(sum(dump.size_bytes for dump in dumps))
        say(f"{len(dumps):,} in {store.name}, {total}")


def _watch(store: Store, s3: S3, wanted: Wanted, shown_keys: set[str], *, as_json: bool) -> None:
    """Print each dump that appears, until a signal ends it."""
    began = time.time()
    while True:
        pause(_WATCH_S)
        recent = dataclasses.replace(wanted, since=max(wanted.since or 0.0, began - 86400.0))
        found, _ = _find(store, s3, recent, None, everything=False)
        new = [dump for dump in found if dump.key not in shown_keys]
        shown_keys.update(dump.key for dump in new)
        if new:
            _show(new, store, s3, wanted, as_json=as_json)


def as_dict(dump: StoredDump, beside: list[StoredObject] | None = None) -> dict[str, Any]:
    """Give what is known of the dump as JSON takes it; times are ISO 8601 in UTC, what is not known is null."""
    owner = dump.owner
    of_object = dump.entry is None
    return {
        "key": dump.key,
        "path": dump.path,
        "application": dump.application,
        "namespace": owner.namespace,
        "workload": owner.workload,
        "pod": owner.pod,
        "node": dump.node,
        "cluster": dump.cluster,
        "dump_time": None if dump.dumped is None else timestamp(dump.dumped),
        "stored_time": timestamp(dump.stored.modified) if of_object else None,
        "size_bytes": dump.size_bytes,
        "original_size_bytes": dump.original_size_bytes,
        "verdict": dump.verdict,
        "cause": dump.cause,
        "jvm": dump.jvm,
        "crc32": f"{dump.checksum.crc32:08x}" if dump.checksum else None,
        "etag": dump.stored.etag or None,
        "storage_class": dump.stored.storage_class if of_object else None,
        "metadata": None if dump.stored.metadata is None else dict(dump.stored.metadata),
        "companions": None
        if beside is None
        else [{"key": each.key, "size_bytes": each.size_bytes} for each in beside],
        "indexed": dump.entry is not None,
        "refused": dump.refused,
    }
