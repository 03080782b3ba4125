"""A heap dump of a few hundred bytes, whole by every rule, to send through the whole path."""

from __future__ import annotations

import struct


def canary(dump_time_ms: int) -> bytes:
    """Give a heap dump with one string, one empty byte array and its END.

    Source: HPROF binary format: header, STRING, HEAP DUMP SEGMENT with PRIMITIVE ARRAY DUMP, HEAP DUMP END.
    """
    header = b"JAVA PROFILE 1.0.2\0" + struct.pack(">IQ", 8, dump_time_ms)
    string = _record(0x01, (1).to_bytes(8, "big") + b"dumpagent doctor")
    array = b"\x23" + (2).to_bytes(8, "big") + bytes(4) + struct.pack(">IB", 64, 8) + bytes(64)
    return header + string + _record(0x1C, array) + _record(0x2C, b"")


def _record(tag: int, body: bytes) -> bytes:
    return struct.pack(">BII", tag, 0, len(body)) + body
