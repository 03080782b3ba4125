"""`dumpagent rechunk`: rewrites a .hprof.gz so that Eclipse MAT opens it without unpacking."""

from __future__ import annotations

import os

import click

from dumpagent.errors import Refused
from dumpagent.hprof.chunked import BLOCK_BYTES, rechunk
from dumpagent.kernel.files import sync_directory
from dumpagent.kernel.reading import open_regular
from dumpagent.kernel.rename import rename_noreplace


@click.command("rechunk", short_help="Rewrite a .hprof.gz so that Eclipse MAT opens it directly.")
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
def command(source: str, target: str) -> None:
    """Rewrite the gzip heap dump SOURCE as TARGET, in the chunked form that Eclipse MAT reads with random access.

    JVMs write that form with -XX:HeapDumpGzipLevel, but some (JDK 22 and later, which join two files) in a way that MAT
    has to unpack, as every file made by gzip. The unpacked bytes are the same. TARGET must not exist; SOURCE stays.
    """
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open_regular(source) as opened, open(opened.fd, "rb", closefd=False) as packed:
            if os.path.lexists(target):
                raise Refused(f"{target} exists", hint="name a file that does not exist yet")
            with open(temporary, "xb") as file:
                for member in rechunk(packed):
                    file.write(member.packed)
                file.flush()
                os.fsync(file.fileno())
            rename_noreplace(temporary, target)
            sync_directory(os.path.dirname(os.path.abspath(target)))
    except EOFError as error:
        raise Refused(
            f"{source} is cut: its last gzip member has no end",
            hint="its JVM was killed or its disk was full; `dumpagent inspect` tells what is in it",
        ) from error
    except OSError as error:  # BadGzipFile is one
        raise Refused(f"{source} to {target}: {error.strerror or error}") from error
    finally:
        if os.path.lexists(temporary):
            os.unlink(temporary)
    click.echo(f"{target}: chunks of {BLOCK_BYTES >> 10} KiB")
