"""`dumpagent export`: the bucket's index as rows, for tools that answer questions about many dumps."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, BinaryIO

import click

from dumpagent.cli.options import takes
from dumpagent.cli.store import bucket_to_read
from dumpagent.cli.stored import ending_at_once, filters, reads_replica, say
from dumpagent.dumps.text import iso_time
from dumpagent.errors import DumpagentError
from dumpagent.fetch.catalogue import list_dumps
from dumpagent.fetch.choice import key_in
from dumpagent.fetch.stored import StoredDump, Wanted
from dumpagent.settings import S3, Replica

_ROWS_AT_ONCE = 50_000


@click.command("export", short_help="Write the list of all dumps as NDJSON or Parquet.")
@click.argument("part", default="")
@filters
@click.option(
    "--format", "form", type=click.Choice(["ndjson", "parquet"]), default="ndjson", show_default=True,
    help="ndjson: a line of JSON for each dump; parquet: needs the extra dumpagent[export]",
)  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="the file to make  [default: standard output]")
@reads_replica
@takes(S3, Replica, without=["storage_class"], hidden=[Replica])
def command(
    s3: S3,
    replica: Replica,
    from_replica: bool,
    part: str,
    wanted: Wanted,
    form: str,
    output: str | None,
) -> None:
    """Write a row for each dump in the bucket's index, oldest first, for DuckDB, Athena or a lake.

    One request for a thousand dumps. The filters are those of `ls`. A file gets its name when it is whole.

    \b
    Examples:
      dumpagent export --since 30d --output dumps.ndjson
      dumpagent export --format parquet --output dumps.parquet
    """
    if form == "parquet":
        _require_pyarrow()
        if output is None and sys.stdout.isatty():
            raise click.UsageError("a Parquet file is not for a terminal: name one with --output")
    s3, store = bucket_to_read(s3, replica if from_replica else None)
    wanted = dataclasses.replace(wanted, part=key_in(part, s3.bucket))
    with ending_at_once(said="nothing is left of the unfinished file"):
        dumps = list_dumps(store, wanted, prefix=s3.prefix, now=time.time())
        if dumps is None:
            raise DumpagentError(
                f"{store.name} has no index",
                hint="`dumpagent reindex` makes it from the dumps that are there",
            )
        rows = map(row_of, dumps)
        try:
            with _opened(output) as file:
                write_parquet(rows, file) if form == "parquet" else write_ndjson(rows, file)
        except BrokenPipeError:
            os._exit(1)  # `head` has seen enough
        except OSError as error:
            raise DumpagentError(f"{output or 'standard output'}: {error.strerror or error}") from error
        say(f"{len(dumps):,} dumps")


def row_of(dump: StoredDump) -> dict[str, Any]:
    """Give one dump as a row; what is not known is None."""
    owner = dump.owner
    crc32 = dump.entry.crc32 if dump.entry else None
    return {
        "key": dump.key,
        "path": dump.path,
        "cluster": dump.cluster,
        "node": dump.node,
        "namespace": owner.namespace,
        "workload": owner.workload,
        "pod": owner.pod,
        "dump_time": int(dump.when),
        "stored_bytes": dump.size_bytes,
        "original_bytes": dump.original_size_bytes,
        "verdict": dump.verdict,
        "cause": dump.cause,
        "crc32": None if crc32 is None else f"{crc32:08x}",
    }


def write_ndjson(rows: Iterable[dict[str, Any]], file: BinaryIO) -> None:
    """Write a line of JSON for each row; times are ISO 8601 in UTC."""
    for row in rows:
        line = json.dumps({**row, "dump_time": iso_time(row["dump_time"])})
        file.write(line.encode() + b"\n")
    file.flush()


def write_parquet(rows: Iterable[dict[str, Any]], file: BinaryIO) -> None:
    """Write the rows as one Parquet file, in groups, so that memory holds one of them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.string()
    names = ("key", "path", "cluster", "node", "namespace", "workload", "pod")
    schema = pa.schema(
        [
            *((name, text) for name in names),
            ("dump_time", pa.timestamp("ms", tz="UTC")),  # Parquet has no seconds
            ("stored_bytes", pa.int64()),
            ("original_bytes", pa.int64()),
            *((name, text) for name in ("verdict", "cause", "crc32")),
        ]
    )
    waiting = iter(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(waiting, _ROWS_AT_ONCE)):
            columns = {name: [_cell(name, row[name]) for row in group] for name in schema.names}
            writer.write_table(pa.table(columns, schema=schema))


def _cell(name: str, value: Any) -> Any:
    if name == "dump_time":
        return value * 1000
    # A key may hold bytes that are no UTF-8, which Parquet's strings cannot.
    return (
        value.encode(errors="surrogateescape").decode(errors="replace") if isinstance(value, str) else value
    )


def _require_pyarrow() -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise DumpagentError(
            "--format parquet needs PyArrow, which is not installed", hint="pip install 'dumpagent[export]'"
        )


@contextlib.contextmanager
def _opened(output: str | None) -> Iterator[BinaryIO]:
    """Give standard output, or a new file that has its name once the block has ended well. Raises OSError."""
    if output is None:
        yield sys.stdout.buffer
        return
    temporary = f"{output}.{os.getpid()}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, output)
    except BaseException:
        os.unlink(temporary)
        raise
