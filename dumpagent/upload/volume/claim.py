"""Gives a finished dump a name of its own, so that the JVM's next dump finds the usual name free."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable

from dumpagent.dumps.model import DumpFacts, DumpFile, Identity, dump_time_ms
from dumpagent.dumps.names import claimed_name, dump_of_segment
from dumpagent.dumps.segment_files import segment_files_of
from dumpagent.errors import DumpagentError
from dumpagent.kernel.lease import WriterState, lease_stands, release_lease, take_read_lease
from dumpagent.kernel.reading import open_regular
from dumpagent.kernel.rename import rename_noreplace

_SAME_SECOND_MOST = 1000


class CannotClaim(DumpagentError):
    """The volume does not let us rename: the dump keeps its name and is uploaded under it all the same."""


class StillWritten(DumpagentError):
    """Somebody has the dump, or a part of it, open for writing: it is not finished, judge it again."""


def claim(
    dump: DumpFile,
    facts: DumpFacts | None,
    *,
    take_lease: Callable[[int], WriterState] = take_read_lease,
    rename: Callable[[str, str], None] = rename_noreplace,
) -> DumpFile:
    """Give the dump under its new name `<stem>.<dump time>.hprof` in the same directory.

    A dump that has its own time in its name already comes back as it is. Orphaned parts (X.hprof.p0) are renamed with
    it, before it, so that no new dump can begin between the two; they keep their dump's name plus `.p<N>`.
    Raises StillWritten, CannotClaim with what to do, FileNotFoundError when it is gone or not the file that was
    judged; nothing is renamed then.
    """
    directory, _, name = dump.path.rpartition("/")
    time_ms = dump_time_ms(dump, facts)
    base = dump_of_segment(dump.path)
    if claimed_name(name, time_ms) == name or (base and os.path.lexists(base)):
        return dump  # a part is renamed together with its dump
    try:
        with open_regular(dump.path) as opened:
            status = opened.status()
            if dump.identity != Identity(status.st_ino, status.st_size, status.st_mtime_ns):
                raise FileNotFoundError(errno.ENOENT, "it is another file now, or was written to", dump.path)
            # While the lease is held nobody can begin to write, so the answer holds until the new name stands.
            writer = take_lease(opened.fd)
            if writer is WriterState.UNKNOWN and base:
                return dump
            if writer is WriterState.WRITER:
                raise StillWritten(f"{dump.path} is open for writing")
            try:
                # Without the kernel's word the parts stay: taking one from a JVM that merely hangs breaks its dump.
                parts = segment_files_of(dump) if writer is WriterState.NO_WRITER else []
                _refuse_written(parts, take_lease)
                if writer is WriterState.NO_WRITER and not lease_stands(opened.fd):
                    raise StillWritten(f"{dump.path} is opened for writing just now")
                new_name = _rename_all(directory, name, parts, time_ms, rename)
                if os.lstat(f"{directory}/{new_name}").st_ino != dump.identity.inode:
                    rename(f"{directory}/{new_name}", dump.path)
                    raise FileNotFoundError(errno.ENOENT, "another file took its name just now", dump.path)
            finally:
                if writer is WriterState.NO_WRITER:
                    release_lease(opened.fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CannotClaim(f"cannot be renamed: {error.strerror}", hint=_hint(error.errno)) from error
    below = dump.relpath.rpartition("/")[0]
    return dataclasses.replace(dump, relpath=f"{below}/{new_name}" if below else new_name)


def _refuse_written(parts: list[DumpFile], take_lease: Callable[[int], WriterState]) -> None:
    for part in parts:
        with open_regular(part.path) as opened:
            writer = take_lease(opened.fd)
            if writer is WriterState.NO_WRITER:
                release_lease(opened.fd)
            else:
                raise StillWritten(f"{part.path} is open for writing, or nobody can say")


def _rename_all(
    directory: str, name: str, parts: list[DumpFile], time_ms: int, rename: Callable[[str, str], None]
) -> str:
    """Rename the parts, then the dump itself; give its new name. What cannot be finished is undone."""
    for count in range(1, _SAME_SECOND_MOST):
        new_name = claimed_name(name, time_ms, count=count)
        steps = [
            (part.path, f"{directory}/{new_name}{part.path[len(directory) + 1 + len(name) :]}")
            for part in parts
        ]
        steps.append((f"{directory}/{name}", f"{directory}/{new_name}"))
        done: list[tuple[str, str]] = []
        try:
            for old, new in steps:
                rename(old, new)
                done.append((old, new))
            return new_name
        except OSError as error:
            for old, new in reversed(done):
                rename(new, old)
            if not isinstance(error, FileExistsError):
                raise
    raise FileExistsError(errno.EEXIST, "too many dumps of this name and second", f"{directory}/{name}")


def _hint(code: int | None) -> str:
    if code in (errno.EACCES, errno.EPERM):
        return (
            "give the agent the capability DAC_OVERRIDE (and FOWNER where the directory has the sticky bit), "
            "or set CLAIM=false; until then a JVM that reuses the name loses its next dump"
        )
    if code == errno.EROFS:
        return "the volume is read-only for the agent: mount it writable, or set CLAIM=false"
    if code == errno.ENAMETOOLONG:
        return "the name has no room for 17 more characters: use a shorter HeapDumpPath"
    return "the volume cannot rename without the danger of replacing: set CLAIM=false"
