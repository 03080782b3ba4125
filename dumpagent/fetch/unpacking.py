"""Unpacks a fetched dump beside its part file, and never to more bytes than a dump of that kind has."""

from __future__ import annotations

import os

from dumpagent.fetch.part_file import Advance, NoRoom, new_file, read_file, room_bytes
from dumpagent.fetch.stream import Damaged, unpack
from dumpagent.hprof.records import GZIP_MAGIC
from dumpagent.kernel.files import write_at

# Where nobody has told the unpacked size. Measured: heap dumps pack to a third by what the JVM itself uses; only a heap of
# empty arrays comes to more than 1 : 50. gzip can do 1 : 1032.
_TIMES_MOST, _ALWAYS_BYTES = 100, 1 << 30


def begins_with_gzip(fd: int) -> bool:
    """Say whether the file is gzip data by its first bytes."""
    return os.pread(fd, len(GZIP_MAGIC), 0) == GZIP_MAGIC


def unpacked_size(packed_fd: int, advance: Advance) -> int:
    """Give the size of what the file unpacks to, by unpacking it once and keeping nothing.

    Raises NoRoom as soon as it is more than the disk has room for, Damaged where it is no gzip data, or unpacks to so
    much that it is no dump.
    """
    packed_bytes, room = os.fstat(packed_fd).st_size, room_bytes(packed_fd)
    credible = max(_ALWAYS_BYTES, _TIMES_MOST * packed_bytes)
    size_bytes = 0
    for piece in unpack(read_file(packed_fd, advance)):
        size_bytes += len(piece)
        if size_bytes > credible:
            raise Damaged(
                f"its {packed_bytes:,} bytes unpack to more than {credible:,}, which no heap dump does",
                hint="fetch it without --gunzip, and look whose object it is",
            )
        if size_bytes > room:
            raise NoRoom(
                f"unpacked it has more than the {room:,} bytes that there is room for",
                hint="name a directory on another disk with --output, or fetch it without --gunzip",
            )
    return size_bytes


def unpack_to(path: str, packed_fd: int, size_bytes: int, advance: Advance) -> None:
    """Make `path` of what the file unpacks to, durably. Raises Damaged where that is not `size_bytes` long, OSError."""
    fd = new_file(path)
    try:
        at = 0
        for piece in unpack(read_file(packed_fd, advance), most_bytes=size_bytes):
            write_at(fd, piece, at)
            at += len(piece)
        if at != size_bytes:
            raise Damaged(f"it unpacks to {at:,} bytes, the dump had {size_bytes:,}")
        os.fsync(fd)
    except BaseException:
        os.unlink(path)
        raise
    finally:
        os.close(fd)
