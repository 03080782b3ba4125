"""A dump's open file: opened without following links, confirmed unchanged, read a span at a time."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable

from isal import isal_zlib

from dumpagent.dumps.model import DumpFile, Identity
from dumpagent.dumps.text import iso_time
from dumpagent.errors import DumpagentError
from dumpagent.kernel.beneath import open_file
from dumpagent.units import KIB, MIB

# Small enough for the processor's cache: what is read is summed and encrypted before it falls out of it.
READ_BYTES = 256 * KIB
# Dropping pages one by one finds them still in the kernel's per-CPU batches, and they stay. Measured: 8 MiB holds.
DROP_BYTES = 8 * MIB
_SAMPLES = 32


class SourceChanged(DumpagentError):
    """The file is no longer the one that was judged: it was written to, cut or replaced meanwhile."""


class Stopped(Exception):
    """The agent is ending, or another dump has to go first; what was under way goes on later."""


class UploadTurn:
    """How long the upload under way may go on. Set by whoever knows what waits; any thread may ask."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.begin()

    def begin(self) -> None:
        """Begin a turn: nobody waits."""
        self._cut_at = self._over_at = float("inf")

    def cut_from(self, at: float) -> None:
        """Have the upload cut off at this time, monotonic."""
        self._cut_at = min(self._cut_at, at)

    def over_from(self, at: float) -> None:
        """Have the upload make room from this time on, where no work is lost by it."""
        self._over_at = min(self._over_at, at)

    def is_cut(self) -> bool:
        """Say whether the upload has to be cut off: it goes on after what waits."""
        return self._monotonic() >= self._cut_at

    def is_over(self) -> bool:
        """Say whether the upload has to make room, asked where no work is lost by it."""
        return self._monotonic() >= min(self._cut_at, self._over_at)


class Stop:
    """Why an upload has to be cut off: the agent ends, or another dump has to go first."""

    def __init__(self, ending: threading.Event) -> None:
        self._ending = ending
        self.somebody_waits: Callable[[], bool] = lambda: False
        self.turn_is_over: Callable[[], bool] = lambda: False

    def is_set(self) -> bool:
        """Say whether to stop now."""
        return self._ending.is_set() or self.somebody_waits()

    def is_set_between(self) -> bool:
        """Say whether to stop where all that was done so far is kept."""
        return self.is_set() or self.turn_is_over()

    def wait(self, seconds: float) -> bool:
        """Wait, and say whether the agent ends."""
        return self._ending.wait(seconds)


def open_dump(dump: DumpFile) -> int:
    """Give a descriptor of the dump, which the caller closes. Raises SourceChanged if another file stands there.

    No part of its path may be a link, or lead out of the dump root.
    """
    fd = open_file(dump.root, dump.relpath)
    try:
        confirm_unchanged(fd, dump.identity)
    except BaseException:
        os.close(fd)
        raise
    return fd


def confirm_unchanged(fd: int, identity: Identity) -> None:
    """Return if the open file is still the one that was judged. Raises SourceChanged."""
    status = os.fstat(fd)
    now = Identity.of(status)
    if now != identity:
        raise SourceChanged(
            f"the file changed while it was read: {_difference(identity, now)}",
            hint="it is judged again, and uploaded anew when nobody writes it any more",
        )


def _difference(before: Identity, now: Identity) -> str:
    if now.inode != before.inode:
        return "another file has its name"
    written = iso_time(now.mtime_ns / 1e9) or "at an impossible time"
    if now.size_bytes < before.size_bytes:
        return f"it was cut or written over, {before.size_bytes} bytes before, {now.size_bytes} now, at {written}"
    if now.size_bytes > before.size_bytes:
        return f"it grew, {before.size_bytes} bytes before, {now.size_bytes} now, at {written}"
    return f"it was written over, its {now.size_bytes} bytes are as many as before, at {written}"


def read_span(fd: int, start: int, length: int) -> bytes:
    """Give exactly these bytes. Raises SourceChanged if the file ends before."""
    data = os.pread(fd, length, start)
    while len(data) < length:
        more = os.pread(fd, length - len(data), start + len(data))
        if not more:
            raise file_shrank(start + len(data))
        data += more
    return data


def other_bytes() -> SourceChanged:
    """Give the error for a file whose bytes are not those of its fingerprint."""
    return SourceChanged(
        "the file's bytes changed while it was read, its size and time did not",
        hint="if this comes again, the volume or the memory of the node is failing: nothing was stored",
    )


class FileSpan(io.RawIOBase):
    """A span of an open file, read when it is sent. Raises SourceChanged at its end if the CRC32 is another, and Stopped
    in the middle if `stopped()`: a large part on a slow line takes longer than an ending agent is given.

    The descriptor stays the caller's. One reader at a time. What was read is dropped from the page cache: nobody
    reads a dump again soon, and the node has better use for the memory.
    """

    def __init__(
        self,
        fd: int,
        start: int,
        length: int,
        crc32: int,
        *,
        stopped: Callable[[], bool] = lambda: False,
        read_bytes: int = READ_BYTES,
    ) -> None:
        self._stopped = stopped
        self._read_bytes = read_bytes
        self._fd, self._start, self._length, self._expected = fd, start, length, crc32
        self._at = self._dropped = 0
        self._crc32: int | None = 0  # of what was read from the start on without a jump
        self._buffer: memoryview | None = None
        self.failure: Exception | None = None

    def anew(self) -> FileSpan:
        return FileSpan(
            *(self._fd, self._start, self._length, self._expected),
            stopped=self._stopped,
            read_bytes=self._read_bytes,
        )

    def __len__(self) -> int:
        return self._length

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._at = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence] + offset
        self._crc32 = 0 if self._at == 0 else None
        self._dropped = self._at
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Give the next bytes: more than `size` if that is small, for HTTP libraries ask for 16 KiB at a time.

        They pass on whatever they get. What is given is good until the next call.
        """
        try:
            return self._read(size)
        except (DumpagentError, OSError, Stopped) as error:
            self.failure = error
            raise

    def _read(self, size: int) -> bytes:
        if self._stopped():
            raise Stopped
        left = self._length - self._at
        if size < 0:
            data: bytes | memoryview = read_span(self._fd, self._start + self._at, left)
        else:
            if self._buffer is None:
                self._buffer = memoryview(bytearray(min(self._read_bytes, self._length)))
            got = os.preadv(self._fd, [self._buffer[:left]], self._start + self._at)
            if left and not got:
                raise file_shrank(self._start + self._at)
            data = self._buffer[:got]
        self._at += len(data)
        if data and self._crc32 is not None:
            self._crc32 = isal_zlib.crc32(data, self._crc32)
            if self._at == self._length and self._crc32 != self._expected:
                raise other_bytes()
        if self._at - self._dropped >= DROP_BYTES or self._at == self._length:
            drop_behind(self._fd, self._start + self._dropped, self._at - self._dropped)
            self._dropped = self._at
        return data  # type: ignore[return-value]  # a view: whoever sends it takes any buffer


def drop_behind(fd: int, start: int, length: int) -> None:
    """Let the kernel forget these pages, if nobody has yet to write them; a length of 0 is all that follows.

    Source: posix_fadvise(2), DONTNEED.
    """
    try:
        os.posix_fadvise(fd, start, length, os.POSIX_FADV_DONTNEED)
    except OSError:
        pass  # some file systems know no advice: then the kernel forgets them when it needs the memory


def is_cached(fd: int, size_bytes: int) -> bool:
    """Say whether most of the file is in the page cache, by looking at a few pages of it.

    Source: preadv2(2), RWF_NOWAIT: EAGAIN where it would have to wait for the disk. Where that is not known, no.
    """
    page = bytearray(1)
    found = 0
    _advise(fd, os.POSIX_FADV_RANDOM)  # or each look would make the kernel read ahead
    for number in range(_SAMPLES):
        try:
            found += os.preadv(fd, [page], size_bytes * number // _SAMPLES, os.RWF_NOWAIT)
        except OSError:
            continue
    _advise(fd, os.POSIX_FADV_NORMAL)
    return found >= _SAMPLES * 3 // 4


def _advise(fd: int, advice: int) -> None:
    try:
        os.posix_fadvise(fd, 0, 0, advice)
    except OSError:
        pass  # a file system that knows no advice


def file_shrank(left_bytes: int) -> SourceChanged:
    """Give the error for a file that ends before its size."""
    return SourceChanged(
        f"the file shrank to {left_bytes} bytes while it was read",
        hint="it is judged again, and uploaded when nobody writes it any more",
    )
