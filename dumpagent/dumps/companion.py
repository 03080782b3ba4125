"""The files beside a dump: which they are, to which dump each belongs, and the path under which it is stored.

A companion of `shop/java_pid1.hprof` that was dumped at noon stands below
`shop/java_pid1.20260101T120000Z.companions/`, beside its dump in every listing. Pure functions on names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from dumpagent.dumps.globs import CRASH_FILES, Globs
from dumpagent.dumps.model import DumpFile
from dumpagent.dumps.names import parts_of, stamp

_FOLDER = re.compile(r"(?:.*/)?[^/]*\.[0-9]{8}T[0-9]{6}Z\.companions/[^/]+", re.DOTALL)
_CRASH_FILES = Globs(CRASH_FILES)
_PID = re.compile(r"pid(\d+)")
# A log is written until its JVM ends, which a large dump or a rescue by the operating system can delay.
_NEAR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """A dump whose files beside it are wanted: its path and time when it was made, and when its file was last written."""

    original: str
    dump_time_ms: int
    written_s: float

    @property
    def folder(self) -> str:
        return companion_folder(self.original, self.dump_time_ms)


def is_crash_file(name: str) -> bool:
    """Say whether only a dying JVM writes such a file; other companions, as GC logs, are wanted beside a dump alone."""
    return _CRASH_FILES.match(name)


def companion_folder(original: str, dump_time_ms: int) -> str:
    """Give the folder of the companions of the dump that was made under this path at this time, with a slash."""
    directory, slash, name = original.rpartition("/")
    at = f".{stamp(dump_time_ms)}"
    stem = parts_of(name).stem.partition(at)[0]  # a key may have the time, and the node behind it, already
    return f"{directory}{slash}{parts_of(stem + '.hprof').bare_stem}{at}.companions/"


def is_companion_path(path: str) -> bool:
    """Say whether the object with this path below S3_PREFIX is a companion, and no dump."""
    return _FOLDER.fullmatch(path) is not None


def nearest(file: DumpFile, anchors: Iterable[Anchor]) -> Anchor | None:
    """Give the dump of its directory that the file belongs to, None if there is none within an hour.

    Several JVMs may share a directory: the same process ID and the same beginning of the name count before time.
    """
    near = [each for each in anchors if abs(file.mtime - each.written_s) <= _NEAR_S]
    return min(near, key=lambda each: _distance(file, each), default=None)


def _distance(file: DumpFile, anchor: Anchor) -> tuple[bool, bool, float]:
    name, stem = _name(file.relpath), parts_of(_name(anchor.original)).bare_stem
    pids = _PID.search(name), _PID.search(stem)
    other_pid = bool(pids[0] and pids[1] and pids[0][1] != pids[1][1])
    return other_pid, not name.startswith(stem), abs(file.mtime - anchor.written_s)


def _name(path: str) -> str:
    return path[path.rfind("/") + 1 :]
