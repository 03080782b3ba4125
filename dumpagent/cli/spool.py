"""Opens a dump for a command that reads it several times: a file, or an object of the store, copied to a temporary file."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dumpagent.errors import DumpagentError
from dumpagent.kernel.reading import OpenFile, open_regular
from dumpagent.settings import S3
from dumpagent.terminal import progress

_SPARE_BYTES = 16 << 20
_HINTS = {
    "Permission denied": "dumps belong to their application's user alone: run this as that user or as root",
    "Too many levels of symbolic links": "name the file that the symbolic link leads to",
    "not a regular file": "name a file, not a directory or device",
}


class NothingToOpen(DumpagentError):
    """Neither a file nor the store has it."""


@contextmanager
def opened_dump(dump: str, s3: Callable[[], S3]) -> Iterator[tuple[OpenFile, str]]:
    """Give the file `dump`, or the dump of that key or path in the store, and its name.

    `s3` gives the store's settings, and is asked only where there is no such file. Raises DumpagentError, OSError.
    """
    if os.path.lexists(dump):
        try:
            opened = open_regular(dump)
        except OSError as error:
            raise NothingToOpen(
                f"{dump}: {error.strerror}", hint=_HINTS.get(error.strerror or "", "check the path")
            ) from error
        with opened:
            yield opened, os.path.basename(dump)
        return
    try:
        settings = s3()
    except DumpagentError as error:
        raise NothingToOpen(
            f"there is no file {dump}, and no store is named",
            hint=f"check the path; or, for a key: {error.hint}",
        ) from error
    with _spooled(dump, settings) as found:
        yield found


@contextmanager
def _spooled(key: str, settings: S3) -> Iterator[tuple[OpenFile, str]]:
    from dumpagent.cli.store import open_store_to_read
    from dumpagent.cli.stored import pause
    from dumpagent.fetch.choice import choose, key_in
    from dumpagent.fetch.stored import Wanted
    from dumpagent.fetch.stream import read_object

    store = open_store_to_read(settings)
    found = choose(store, Wanted(part=key_in(key, settings.bucket)), prefix=settings.prefix, now=time.time())
    folder = tempfile.gettempdir()
    free = os.statvfs(folder)
    if free.f_bavail * free.f_frsize < found.size_bytes + _SPARE_BYTES:
        raise DumpagentError(
            f"{folder} has no room for the {found.size_bytes:,} bytes of {found.path}",
            hint="name another directory with the variable TMPDIR",
        )
    with tempfile.TemporaryFile() as file:
        with progress.bar(f"fetching {found.name}", found.size_bytes) as advance:
            for chunk in read_object(store, found.stored, pause=pause):
                file.write(chunk)
                advance(len(chunk))
        file.flush()
        # Nothing but this descriptor leads to it: it is gone with the process, however that ends.
        with OpenFile(os.dup(file.fileno()), found.key) as opened:
            yield opened, found.path
