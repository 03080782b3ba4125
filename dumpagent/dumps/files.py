"""Opens the dump that was found, and no other that has its name by now."""

from __future__ import annotations

import errno
import os
import stat

from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.kernel.beneath import open_in, opened_parent
from dumpagent.kernel.reading import OpenFile

_BLOCK_BYTES = 512  # Source: stat(2), st_blocks


def dump_file(root: str, relpath: str, status: os.stat_result) -> DumpFile | None:
    """Give the dump file that `status` describes, None if it is no regular file."""
    if not stat.S_ISREG(status.st_mode):
        return None
    identity = Identity.of(status)
    holes = max(0, status.st_size - status.st_blocks * _BLOCK_BYTES)
    return DumpFile(root, relpath, identity, device=status.st_dev, uid=status.st_uid, hole_bytes=holes)


def open_dump(dump: DumpFile) -> OpenFile:
    """Open the dump for reading. Raises FileNotFoundError when another file has its name now, OSError."""
    with opened_parent(dump.root, dump.relpath) as (directory, _):
        return open_dump_in(directory, dump)


def open_dump_in(directory: int, dump: DumpFile) -> OpenFile:
    """Do what `open_dump` does with its directory, which is open."""
    opened = OpenFile(open_in(directory, dump.relpath.rpartition("/")[2]), dump.path)
    status = opened.status()
    if not is_same_file(dump, status):
        os.close(opened.fd)
        raise FileNotFoundError(errno.ENOENT, "another file has this name now", dump.path)
    return opened


def is_same_file(dump: DumpFile, status: os.stat_result) -> bool:
    """Say whether this is the file that was found, whatever was written to it since.

    By inode and owner; the device changes when the volume is mounted anew.
    """
    return stat.S_ISREG(status.st_mode) and (status.st_ino, status.st_uid) == (dump.identity.inode, dump.uid)


def found_again(dump: DumpFile) -> DumpFile:
    """Give the dump as it is now. Raises FileNotFoundError when it is gone or another file has its name, OSError."""
    with opened_parent(dump.root, dump.relpath) as (directory, name):
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    now = dump_file(dump.root, dump.relpath, status)
    if now is None or not is_same_file(dump, status):
        raise FileNotFoundError(errno.ENOENT, "another file has this name now", dump.path)
    return now


def find(root: str, relpath: str) -> DumpFile | None:
    """Give the regular file at this path, None if there is something else. Raises OSError."""
    with opened_parent(root, relpath) as (directory, name):
        return dump_file(root, relpath, os.stat(name, dir_fd=directory, follow_symlinks=False))


def segment_files_of(dump: DumpFile) -> list[DumpFile]:
    """Give the segment files that lie beside `dump` now, in the order of their numbers. Raises OSError.

    While the JVM lives they are its own: whoever renames or deletes one breaks the dump. When it was killed they hold
    most of the heap, and stop the next dump of that name ("File exists"). Those of another owner are no part of it.
    """
    with opened_parent(dump.root, dump.relpath) as (directory, _):
        return segment_files_in(directory, dump)


# A JVM numbers them by the thread that writes. Asked by name: a directory can be made to hold millions.
_MOST_SEGMENT_FILES = 256


def segment_files_in(directory: int, dump: DumpFile) -> list[DumpFile]:
    """Do what `segment_files_of` does in the dump's directory, which is open."""
    name = dump.relpath.rpartition("/")[2]
    found = []
    for number in range(_MOST_SEGMENT_FILES):
        try:
            status = os.stat(f"{name}.p{number}", dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # never there, or merged
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                break
            raise
        file = dump_file(dump.root, f"{dump.relpath}.p{number}", status)
        if file and file.uid == dump.uid:
            found.append(file)
    return found
