"""How long heap records and the values in them are, for compiled code.

Source: JDK heapDumper.cpp, comment "HPROF binary format"; Android's root records: ART, hprof.cc.
"""

from __future__ import annotations

from dumpagent.analyze.native import Array, be32, be64, inlined, int64
from dumpagent.hprof.records import INSTANCE, OBJECT_ARRAY, PRIMITIVE_ARRAY

MORE, BAD = -1, -2


@inlined
def read_id(content: Array, at: int, id_size: int) -> int:
    """Give the identifier at `at`."""
    return be64(content, int64(at)) if id_size == 8 else be32(content, int64(at))


@inlined
def width_of(kind: int, id_size: int) -> int:
    """Give the bytes of a value of this basic type; 0 if there is no such type."""
    if kind == 2:
        return id_size
    if kind == 4 or kind == 8:
        return 1
    if kind == 5 or kind == 9:
        return 2
    if kind == 6 or kind == 10:
        return 4
    if kind == 7 or kind == 11:
        return 8
    return 0


@inlined
def root_bytes(tag: int, id_size: int) -> int:
    """Give the length of a root record, its tag included; BAD if the tag is none of a root."""
    if tag == 0xFF or tag == 0x05 or tag == 0x07:
        return 1 + id_size
    if tag == 0x01:
        return 1 + 2 * id_size
    if tag == 0x02 or tag == 0x03 or tag == 0x08 or tag == 0x8E:
        return 9 + id_size
    if tag == 0x04 or tag == 0x06:
        return 5 + id_size
    if tag == 0x89 or tag == 0x8A or tag == 0x8B or tag == 0x8C or tag == 0x8D or tag == 0x90:
        return 1 + id_size
    if tag == 0xFE:  # Android: which heap follows
        return 5 + id_size
    if tag == 0xC3:  # Android: a primitive array without its content
        return 10 + id_size
    return -2


@inlined
def class_bytes(content: Array, position: int, end: int, id_size: int) -> int:
    """Give the length of the class record at `position`; MORE if it is not all there, BAD if it is none."""
    at = position + 9 + 7 * id_size
    for part in range(3):
        if at + 2 > end:
            return -1
        count = int64(content[at]) << 8 | int64(content[at + 1])
        at += 2
        if part == 2:
            at += count * (id_size + 1)
            break
        before = 2 if part == 0 else id_size
        for _ in range(count):
            if at + before >= end:
                return -1
            width = width_of(int64(content[at + before]), id_size)
            if width == 0:
                return -2
            at += before + 1 + width
    return at - position if at <= end else -1


@inlined
def head_bytes(tag: int, id_size: int) -> int:
    """Give how many bytes of an object's record come before its values; 0 if the tag is none of an object."""
    if tag == INSTANCE:
        return 9 + 2 * id_size
    if tag == OBJECT_ARRAY:
        return 9 + 2 * id_size
    if tag == PRIMITIVE_ARRAY:
        return 10 + id_size
    return 0
