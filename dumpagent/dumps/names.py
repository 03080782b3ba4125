"""The one grammar of heap dump names: which file names are dumps, and what was put into them later.

HeapDumpPath may be any name: a file that is a dump by its first bytes (`dumps/kind.py`) has a stem and a suffix too.

Upload, rescue, keys, `ls`, `get`, notifications and pod Events all ask here. Pure functions on file names (no
directories), `str` with surrogateescape.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from dataclasses import dataclass

# HotSpot writes X.hprof, or X.hprof.gz with HeapDumpGzipLevel, and puts .1, .2 ... behind the later dumps of one JVM;
# people who compress a numbered dump by hand get X.hprof.1.gz.
# Source: JDK heapDumper.cpp, HeapDumper::dump_heap: "%s.%d" of the whole first path.
_DUMP = re.compile(r"(?P<stem>.*)(?P<suffix>\.hprof(?:\.gz)?(?:\.[0-9]{1,9})?(?:\.gz)?)", re.DOTALL)
# JDK 22 and later write the heap into X.hprof.p0, .p1 ... first and merge them into X.hprof at the end.
# Source: JDK heapDumper.cpp, DumpMerger and VM_HeapDumper::get_writer_path: "%s.p%d".
_SEGMENT = re.compile(r"(?P<base>.*)(?P<end>\.p[0-9]{1,9})", re.DOTALL)
_STAMPED = re.compile(
    r"(?P<stem>.*)\.(?P<stamp>[0-9]{8}T[0-9]{6}Z)(?:-(?P<count>[2-9]|[1-9][0-9]+))?", re.DOTALL
)
_RESCUED = re.compile(r"(?P<stem>.*)\.rescued-[0-9]{8}T[0-9]{6}Z(?:-[0-9a-f]{1,32})?", re.DOTALL)
_LONGEST_BYTES = 255  # Source: limits.h, NAME_MAX
# What a time stamp in a dump's header must lie in to be believed: years that have four digits.
LATEST_MS = 253402300799999


@dataclass(frozen=True, slots=True)
class DumpName:
    """The parts of a dump's name, `X.hprof.gz.1.p0`: `stem` X, `suffix` .hprof.gz.1, `segment` .p0 or nothing."""

    stem: str
    suffix: str
    segment: str = ""

    @property
    def bare_stem(self) -> str:
        """Give the stem as the JVM wrote it: without the times that claiming and rescuing put there."""
        stem = self.stem
        while found := _STAMPED.fullmatch(stem) or _RESCUED.fullmatch(stem):
            stem = found["stem"]
        return stem


def parse(name: str) -> DumpName | None:
    """Give the parts of the name of a dump or of one of its segment files; None for any other file."""
    segment = _SEGMENT.fullmatch(name)
    found = _DUMP.fullmatch(segment["base"] if segment else name)
    return DumpName(found["stem"], found["suffix"], segment["end"] if segment else "") if found else None


def parts_of(name: str) -> DumpName:
    """Give the parts of any file's name, should it hold a dump: `heap` has no suffix, `oom.dump` has `.dump`."""
    if found := parse(name):
        return found
    segment = _SEGMENT.fullmatch(name)
    base = segment["base"] if segment else name
    stem, suffix = os.path.splitext(base)
    if _STAMPED.fullmatch(suffix) or _RESCUED.fullmatch(suffix):
        stem, suffix = base, ""
    return DumpName(stem, suffix, segment["end"] if segment else "")


def is_dump_name(name: str) -> bool:
    """Say whether a file of this name is taken for a heap dump; its segment files (`.p<N>`) are not."""
    return _DUMP.fullmatch(name) is not None


def is_gzip_name(name: str) -> bool:
    """Say whether the name promises a gzip-compressed dump."""
    found = _DUMP.fullmatch(name)
    return found is not None and ".gz" in found["suffix"]


def dump_of_segment(name: str) -> str | None:
    """Give the name of the dump that the segment file `name` (`X.hprof.p0`) belongs to; None if it is none."""
    found = _SEGMENT.fullmatch(name)
    return found["base"] if found and is_dump_name(found["base"]) else None


def base_of_segment(name: str) -> str | None:
    """Give what the file `name` would be a segment file of, if that is a dump, whatever its name."""
    found = _SEGMENT.fullmatch(name)
    return found["base"] if found and found["base"] else None


def with_tag(name: str, tag: str) -> str:
    """Put `tag` before `.hprof`, or before the last dot of another name; the stem is cut where it does not fit.

    A dump's name stays one.
    """
    found = parse(name)
    stem, end = (found.stem, found.suffix + found.segment) if found else os.path.splitext(name)
    room = _LONGEST_BYTES - len(os.fsencode(tag + end))
    return os.fsdecode(os.fsencode(stem)[: max(0, room)]) + tag + end


def is_possible(dump_time_ms: int) -> bool:
    """Say whether a dump can have been made at that time: the header of a hostile one may say anything."""
    return 0 < dump_time_ms <= LATEST_MS


def stamp(dump_time_ms: int) -> str:
    """Give the time as it stands in claimed names: YYYYMMDDTHHMMSSZ, UTC.

    Raises ValueError for a time that no calendar has; nobody but a broken or hostile header carries one.
    """
    if not 0 <= dump_time_ms <= LATEST_MS:
        raise ValueError(f"{dump_time_ms} ms after 1970 is no time a dump can have been made at")
    return dt.datetime.fromtimestamp(dump_time_ms // 1000, dt.UTC).strftime("%Y%m%dT%H%M%SZ")


def claimed_name(name: str, dump_time_ms: int, *, count: int = 1) -> str:
    """Give the name that the dump `name` gets when it is claimed: its time before `.hprof`, or its last dot.

    `count` above 1 makes a different name for another dump of the same name and second (`<time>-2`).
    A name that already carries this dump's time stays as it is; a segment file (`.p0`) is named after its dump. Raises
    ValueError if the time is impossible.
    """
    original = original_name(name, dump_time_ms)
    if original != name and count == 1:
        return name
    found = parts_of(original)
    again = f"-{count}" if count > 1 else ""
    return f"{found.stem}.{stamp(dump_time_ms)}{again}{found.suffix}{found.segment}"


def stamped_ms(name: str) -> int | None:
    """Give the time that stands in the name of a claimed dump, in milliseconds since the epoch; None if none does."""
    found = _STAMPED.fullmatch(parts_of(name).stem)
    if not found:
        return None
    try:
        at = dt.datetime.strptime(found["stamp"], "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        return None
    return int(at.timestamp()) * 1000


def original_name(name: str, dump_time_ms: int) -> str:
    """Give the name that the JVM gave the dump or segment file: without the stamp, if that is the dump's own time.

    Any other name, also one with a stamp of another time, is the original itself.
    """
    if not 0 <= dump_time_ms <= LATEST_MS:
        return name
    found = parts_of(name)
    stamped = _STAMPED.fullmatch(found.stem)
    if not stamped or stamped["stamp"] != stamp(dump_time_ms):
        return name
    return stamped["stem"] + found.suffix + found.segment
