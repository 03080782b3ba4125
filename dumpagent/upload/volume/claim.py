"""Gives a finished dump a name of its own, so that the JVM's next dump finds the usual name free."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Callable

from dumpagent.dumps.files import is_same_file, open_dump_in, segment_files_in
from dumpagent.dumps.model import DumpFacts, DumpFile, Identity, dump_time_ms
from dumpagent.dumps.names import base_of_segment, claimed_name
from dumpagent.errors import DumpagentError
from dumpagent.kernel.beneath import opened_parent
from dumpagent.kernel.lease import WriterState, lease_stands, release_lease, take_read_lease
from dumpagent.kernel.rename import rename_in

_SAME_SECOND_MOST = 1000
Rename = Callable[[int, str, str], None]  # directory, name, new name; raises FileExistsError, OSError


class CannotClaim(DumpagentError):
    """The volume does not let us rename: the dump keeps its name and is uploaded under it all the same."""


class StillWritten(DumpagentError):
    """Somebody has the dump, or a part of it, open for writing: it is not finished, judge it again."""


def claim(
    dump: DumpFile,
    facts: DumpFacts | None,
    *,
    take_lease: Callable[[int], WriterState] = take_read_lease,
    rename: Rename = rename_in,
) -> DumpFile:
    """Give the dump under its new name `<stem>.<dump time>.hprof` in the same directory.

    A dump that has its own time in its name already comes back as it is. Orphaned parts (X.hprof.p0) are renamed with
    it, before it, so that no new dump can begin between the two; they keep their dump's name plus `.p<N>`.
    Raises StillWritten, CannotClaim with what to do, FileNotFoundError when it is gone or not the file that was
    judged; nothing is renamed then. Works in one directory that is opened once, whatever its path is made to mean meanwhile.
    """
    time_ms = dump_time_ms(dump, facts)
    name = dump.relpath.rpartition("/")[2]
    base = base_of_segment(name)
    if claimed_name(name, time_ms) == name:
        return dump
    try:
        with (
            opened_parent(dump.root, dump.relpath) as (directory, _),
            open_dump_in(directory, dump) as opened,
        ):
            if base and _is_there(directory, base):
                return dump  # a segment file is renamed together with its dump
            status = opened.status()
            if dump.identity != Identity.of(status):
                raise FileNotFoundError(errno.ENOENT, "it was written to", dump.path)
            # While the lease is held nobody can begin to write, so the answer holds until the new name stands.
            writer = take_lease(opened.fd)
            if writer is WriterState.UNKNOWN and base:
                return dump
            if writer is WriterState.WRITER:
                raise StillWritten(f"{dump.path} is open for writing")
            try:
                # Without the kernel's word the segment files stay: taking one from a JVM that hangs breaks its dump.
                segments = segment_files_in(directory, dump) if writer is WriterState.NO_WRITER else []
                _refuse_written(directory, segments, take_lease)
                if writer is WriterState.NO_WRITER and not lease_stands(opened.fd):
                    raise StillWritten(f"{dump.path} is opened for writing just now")
                new_name = _Renaming(directory, dump, segments, rename).do(time_ms)
            finally:
                if writer is WriterState.NO_WRITER:
                    release_lease(opened.fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CannotClaim(f"cannot be renamed: {error.strerror}", hint=_hint(error.errno)) from error
    below = dump.relpath.rpartition("/")[0]
    return dataclasses.replace(dump, relpath=f"{below}/{new_name}" if below else new_name)


def _is_there(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _refuse_written(
    directory: int, segments: list[DumpFile], take_lease: Callable[[int], WriterState]
) -> None:
    for segment in segments:
        try:
            opened = open_dump_in(directory, segment)
        except FileNotFoundError as error:
            raise StillWritten(f"{segment.path} is merged just now") from error
        with opened:
            writer = take_lease(opened.fd)
            if writer is WriterState.NO_WRITER:
                release_lease(opened.fd)
            else:
                raise StillWritten(f"{segment.path} is open for writing, or nobody can say")


@dataclasses.dataclass(frozen=True, slots=True)
class _Renaming:
    """The renaming of a dump with its segment files in the directory that is open on `directory`; all or nothing."""

    directory: int
    dump: DumpFile
    segments: list[DumpFile]
    rename: Rename

    def do(self, time_ms: int) -> str:
        """Rename the segment files, then the dump itself; give its new name. What cannot be finished is undone."""
        name = self.dump.relpath.rpartition("/")[2]
        for count in range(1, _SAME_SECOND_MOST):
            new_name = claimed_name(name, time_ms, count=count)
            try:
                self._all(name, new_name)
                return new_name
            except FileExistsError:
                continue
        raise FileExistsError(errno.EEXIST, "too many dumps of this name and second", self.dump.path)

    def _all(self, name: str, new_name: str) -> None:
        done: list[tuple[str, str]] = []
        try:
            for file in [*self.segments, self.dump]:
                old = file.relpath.rpartition("/")[2]
                new = new_name + old[len(name) :]
                self.rename(self.directory, old, new)
                done.append((old, new))
                if not is_same_file(file, os.stat(new, dir_fd=self.directory, follow_symlinks=False)):
                    raise FileNotFoundError(errno.ENOENT, "another file took its name just now", file.path)
        except OSError as error:
            for old, new in reversed(done):
                self.rename(self.directory, new, old)
            if isinstance(error, FileNotFoundError) and len(done) < len(self.segments):
                raise StillWritten(f"a segment file of {self.dump.path} is merged just now") from error
            raise


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
    if code == errno.EEXIST:
        return "remove or rename the dumps of this name and second"
    if code in (errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return "the volume cannot rename without the danger of replacing: set CLAIM=false"
    return "it is tried again; see the volume and the node's kernel log"
