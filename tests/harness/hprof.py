"""Heap dumps made by hand, byte for byte, for what no JVM writes on demand.

Source: JDK hprof_b_spec.h and heapDumper.cpp, comment "HPROF binary format".
"""

from __future__ import annotations

import gzip
import struct
from collections.abc import Sequence
from dataclasses import dataclass

NOON_MS = 1_767_268_800_123  # 2026-01-01T12:00:00Z
STRING, LOAD_CLASS, FRAME, TRACE, HEAP_DUMP, SEGMENT, END = 0x01, 0x02, 0x04, 0x05, 0x0C, 0x1C, 0x2C


def record(tag: int, body: bytes = b"", *, length: int | None = None) -> bytes:
    """Give a top-level record; `length` lies about the body's."""
    return struct.pack(">BII", tag, 0, len(body) if length is None else length) + body


@dataclass(frozen=True)
class Maker:
    """Makes the pieces of a dump with identifiers of `id_size` bytes."""

    id_size: int = 8
    version: str = "1.0.2"
    time_ms: int = NOON_MS

    def id(self, number: int) -> bytes:
        return number.to_bytes(self.id_size, "big")

    def header(self) -> bytes:
        return f"JAVA PROFILE {self.version}\0".encode() + struct.pack(">IQ", self.id_size, self.time_ms)

    def string(self, number: int, text: str | bytes) -> bytes:
        return record(STRING, self.id(number) + (text if isinstance(text, bytes) else text.encode()))

    def load_class(self, serial: int, name: int, *, class_id: int | None = None) -> bytes:
        class_object = self.id(0x1000 + serial if class_id is None else class_id)
        return record(LOAD_CLASS, struct.pack(">I", serial) + class_object + bytes(4) + self.id(name))

    def frame(self, number: int, *, method: int, file: int, class_serial: int, line: int) -> bytes:
        ids = self.id(number) + self.id(method) + self.id(0) + self.id(file)
        return record(FRAME, ids + struct.pack(">Ii", class_serial, line))

    def trace(self, serial: int, thread: int, frames: Sequence[int] = ()) -> bytes:
        return record(
            TRACE, struct.pack(">III", serial, thread, len(frames)) + b"".join(map(self.id, frames))
        )

    def head(self, *, oom: bool = True) -> bytes:
        """Give everything before the heap: one class, two threads, one of which ran out of memory."""
        texts = ["java/lang/OutOfMemoryError", "<init>", "com/acme/Shop", "fill", "Shop.java", "run"]
        return b"".join(
            [
                self.header(),
                *(self.string(number, text) for number, text in enumerate(texts, 1)),
                self.string(90, 'openjdk version "21.0.8" 2025-07-15'),
                self.load_class(1, 1),
                self.load_class(2, 3),
                self.trace(1, 0),
                self.frame(71, method=2, file=0, class_serial=1, line=-1),
                self.frame(72, method=4, file=5, class_serial=2, line=42),
                self.frame(73, method=6, file=5, class_serial=2, line=-3),
                self.trace(2, 1, [73]),
                self.trace(3, 2, [71, 72, 73] if oom else [72, 73]),
            ]
        )

    def segment(self, size_bytes: int = 100) -> bytes:
        """Give a heap segment that holds one byte array, `size_bytes` long with its header."""
        around = 1 + self.id_size + 4 + 4 + 1
        body = b"\x23" + self.id(0x5000) + bytes(4) + struct.pack(">I", size_bytes - around) + b"\x08"
        return record(SEGMENT, body + bytes(size_bytes - around))

    def dump(self, *, segments: int = 3, oom: bool = True, segment_bytes: int = 100) -> bytes:
        """Give a whole dump."""
        return self.head(oom=oom) + self.segment(segment_bytes) * segments + record(END)


def members(content: bytes, block_bytes: int = 65536) -> bytes:
    """Give `content` as HotSpot compresses it: a chain of members that unpack to at most `block_bytes`."""
    return b"".join(
        gzip.compress(content[at : at + block_bytes], 1, mtime=0)
        for at in range(0, len(content), block_bytes)
    )
