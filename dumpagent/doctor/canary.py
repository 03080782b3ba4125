"""A small heap dump, whole by every rule, to send through the whole path."""

from __future__ import annotations

import random
import struct


def canary(dump_time_ms: int, *, array_bytes: int = 64) -> bytes:
    """Give a heap dump with one string, one byte array that does not compress, and its END. The same each time.

    Source: HPROF binary format: header, STRING, HEAP DUMP SEGMENT with PRIMITIVE ARRAY DUMP, HEAP DUMP END.
    """
    content = random.Random(dump_time_ms).randbytes(array_bytes)  # noqa: S311 - filler
    header = b"JAVA PROFILE 1.0.2\0" + struct.pack(">IQ", 8, dump_time_ms)
    string = _record(0x01, (1).to_bytes(8, "big") + b"dumpagent doctor")
    array = b"\x23" + (2).to_bytes(8, "big") + bytes(4) + struct.pack(">IB", array_bytes, 8) + content
    return header + string + _record(0x1C, array) + _record(0x2C, b"")


def _record(tag: int, body: bytes) -> bytes:
    return struct.pack(">BII", tag, 0, len(body)) + body
