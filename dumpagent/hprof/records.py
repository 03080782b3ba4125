"""The HPROF binary format's top level: its header, its record tags, and which lengths a record of each tag can have.

Source: JDK, hprof_b_spec.h (the demo agent's description) and heapDumper.cpp, comment "HPROF binary format";
Android adds the heap record tags of "JAVA PROFILE 1.0.3" (ART, hprof.cc).
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

STRING = 0x01
LOAD_CLASS = 0x02
UNLOAD_CLASS = 0x03
FRAME = 0x04
TRACE = 0x05
ALLOC_SITES = 0x06
HEAP_SUMMARY = 0x07
START_THREAD = 0x0A
END_THREAD = 0x0B
HEAP_DUMP = 0x0C
CPU_SAMPLES = 0x0D
CONTROL_SETTINGS = 0x0E
HEAP_DUMP_SEGMENT = 0x1C
HEAP_DUMP_END = 0x2C
# Inside a segment.
ROOT_THREAD, CLASS_DUMP, INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY = 0x08, 0x20, 0x21, 0x22, 0x23
OBJECT_TYPE = 2
# Basic types: code -> name and bytes in the heap. Source: hprof_b_spec.h, "Basic types".
PRIMITIVES = {
    4: ("boolean", 1), 5: ("char", 2), 6: ("float", 4), 7: ("double", 8),
    8: ("byte", 1), 9: ("short", 2), 10: ("int", 4), 11: ("long", 8),
}  # fmt: skip

RECORD = struct.Struct(">BxxxxI")  # u1 tag, u4 time (0 from HotSpot, not used), u4 length of the body
RECORD_BYTES = 9
# A string record holds modified UTF-8 of a constant pool entry or name: 65535 chars of at most 3 bytes.
STRING_MOST_BYTES = 3 * 0x10000
_ANY = 0xFFFFFFFF

_MAGIC = re.compile(rb"JAVA PROFILE (1\.0(?:\.[0-9])?)\0")
MAGIC_START = b"JAVA PROFILE "
HEADER_MOST_BYTES = 32
GZIP_MAGIC = b"\x1f\x8b\x08"


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before the first record, `size_bytes` long. `dump_time_ms` is milliseconds since the epoch."""

    format: str
    id_size: int
    dump_time_ms: int
    size_bytes: int


class NotHprof(ValueError):
    """These bytes do not begin like an HPROF file; `str()` is a clause for a person."""


def read_header(start: bytes) -> Header | None:
    """Give the header that stands at the `start` of a dump; None while there are too few bytes to tell.

    Raises NotHprof when no further byte can make a heap dump of it.
    """
    head = start[:HEADER_MOST_BYTES]
    known = min(len(head), len(MAGIC_START))
    if head[:known] != MAGIC_START[:known]:
        raise NotHprof(f"it begins with {_shown(head[:12])}, not with 'JAVA PROFILE'")
    found = _MAGIC.match(head)
    if not found:
        if len(head) < HEADER_MOST_BYTES and b"\0" not in head:
            return None
        raise NotHprof(f"its format {_shown(head.split(bytes(1))[0])} is not known")
    if len(head) < found.end() + 12:
        return None
    id_size, dump_time_ms = struct.unpack_from(">IQ", head, found.end())
    if id_size not in (4, 8):
        raise NotHprof(f"its identifiers are said to be {id_size} bytes long; 4 and 8 are possible")
    return Header(f"JAVA PROFILE {found[1].decode()}", id_size, dump_time_ms, found.end() + 12)


def _shown(content: bytes) -> str:
    """Give bytes in quotes, those that are no printable ASCII as \\xNN."""
    return repr(content)[1:]


def length_limits(id_size: int) -> dict[int, tuple[int, int]]:
    """Give the least and greatest length of a record's body by tag; a tag that is missing is no HPROF tag."""
    return {
        STRING: (id_size, id_size + STRING_MOST_BYTES),
        LOAD_CLASS: (8 + 2 * id_size,) * 2,
        UNLOAD_CLASS: (4, 4),
        FRAME: (8 + 4 * id_size,) * 2,
        TRACE: (12, _ANY),
        ALLOC_SITES: (34, _ANY),
        HEAP_SUMMARY: (24, 24),
        START_THREAD: (8 + 4 * id_size,) * 2,
        END_THREAD: (4, 4),
        HEAP_DUMP: (0, _ANY),
        CPU_SAMPLES: (8, _ANY),
        CONTROL_SETTINGS: (6, 6),
        HEAP_DUMP_SEGMENT: (0, _ANY),
        HEAP_DUMP_END: (0, 0),
    }


def value_bytes(id_size: int) -> dict[int, int]:
    """Give the bytes that a value of each type takes in a dump."""
    return {OBJECT_TYPE: id_size, **{code: width for code, (_, width) in PRIMITIVES.items()}}
