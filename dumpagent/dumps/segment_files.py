"""The segment files that a JVM writes beside a dump in the making: X.hprof.p0, .p1 ... of JDK 22 and later."""

from __future__ import annotations

import os
import stat

from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.dumps.names import dump_of_segment


def segment_files_of(dump: DumpFile) -> list[DumpFile]:
    """Give the segment files that lie beside `dump` now, in the order of their numbers. Raises OSError.

    While the JVM lives they are its own: whoever renames or deletes one breaks the dump. When it was killed they hold
    most of the heap, and stop the next dump of that name ("File exists").
    """
    directory, _, name = dump.path.rpartition("/")
    below, _, _ = dump.relpath.rpartition("/")
    found = []
    with os.scandir(directory or "/") as entries:
        names = [entry.name for entry in entries if dump_of_segment(entry.name) == name]
    for part in sorted(names, key=lambda part: int(part.rpartition(".p")[2])):
        try:
            status = os.lstat(f"{directory}/{part}")
        except FileNotFoundError:
            continue  # merged meanwhile
        if stat.S_ISREG(status.st_mode):
            identity = Identity(status.st_ino, status.st_size, status.st_mtime_ns)
            relpath = f"{below}/{part}" if below else part
            found.append(DumpFile(dump.root, relpath, identity, device=status.st_dev, uid=status.st_uid))
    return found
