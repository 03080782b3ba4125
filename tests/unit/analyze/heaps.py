"""Heaps made by hand for comparisons: a cache that holds sessions, each with a payload, as a JVM of either width lays them out."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.harness.hprof import END, SEGMENT, Maker, record

_CLASSES = {
    "java/lang/Object": 0x100,
    "com/acme/Cache": 0x200,
    "com/acme/Session": 0x300,
    "[Lcom/acme/Session;": 0x400,
    "[B": 0x500,
    "jdk/internal/vm/FillerObject": 0x600,
}
_TEXTS = ["sessions", "payload", "next", *_CLASSES]
_START = 0x10000


@dataclass
class Heap:
    """A dump in the making: objects stand one behind the other, as large as in a JVM whose references take `reference` bytes."""

    reference: int = 4
    maker: Maker = field(default_factory=Maker)
    body: bytes = b""
    at: int = _START

    def _place(self, size_bytes: int) -> int:
        found, self.at = self.at, self.at + (size_bytes + 7 & -8)
        return found

    def values(self, count: int) -> int:
        """Add a byte[] and give its address."""
        at = self._place((16 if self.reference == 4 else 24) + count)
        self.body += (
            b"\x23" + self.maker.id(at) + bytes(4) + struct.pack(">I", count) + b"\x08" + bytes(count)
        )
        return at

    def session(self, payload: int, following: int) -> int:
        """Add a Session and give its address."""
        at = self._place((12 if self.reference == 4 else 16) + 2 * self.reference)
        values = self.maker.id(payload) + self.maker.id(following)
        self.body += b"\x21" + self.maker.id(at) + bytes(4) + self.maker.id(0x300)
        self.body += struct.pack(">I", len(values)) + values
        return at

    def filler(self) -> None:
        at = self._place(16)
        self.body += b"\x21" + self.maker.id(at) + bytes(4) + self.maker.id(0x600) + struct.pack(">I", 0)

    def array(self, sessions: list[int]) -> int:
        """Add a Session[] and give its address."""
        at = self._place((16 if self.reference == 4 else 24) + self.reference * len(sessions))
        self.body += b"\x22" + self.maker.id(at) + bytes(4) + struct.pack(">I", len(sessions))
        self.body += self.maker.id(0x400) + b"".join(map(self.maker.id, sessions))
        return at

    def dump(self, cached: int) -> bytes:
        """Give the dump; `cached` is what the static Cache.sessions refers to."""
        maker = self.maker
        head = maker.header() + b"".join(maker.string(n, text) for n, text in enumerate(_TEXTS, 1))
        for serial, (name, at) in enumerate(_CLASSES.items(), 1):
            head += maker.load_class(serial, _TEXTS.index(name) + 1, class_id=at)
        heap = b""
        for name, at in _CLASSES.items():
            parent = 0 if at == 0x100 else 0x100
            statics = [(1, cached)] if name == "com/acme/Cache" else []
            fields = [2, 3] if name == "com/acme/Session" else []
            heap += b"\x20" + maker.id(at) + bytes(4) + maker.id(parent) + bytes(5 * maker.id_size)
            heap += struct.pack(">IHH", 16, 0, len(statics))
            heap += b"".join(maker.id(text) + b"\x02" + maker.id(value) for text, value in statics)
            heap += struct.pack(">H", len(fields)) + b"".join(maker.id(text) + b"\x02" for text in fields)
            heap += b"\x05" + maker.id(at)
        return head + record(SEGMENT, heap + self.body) + record(END)


def cache_of(sessions: int, *, payload_bytes: int = 1000, reference: int = 4, fillers: int = 0) -> bytes:
    """Give a dump whose static `com.acme.Cache.sessions` holds as many sessions, each with a payload of its own."""
    heap = Heap(reference)
    for _ in range(fillers):
        heap.filler()
    made = [heap.session(heap.values(payload_bytes), 0) for _ in range(sessions)]
    cached = heap.array(made)
    heap.values(8)  # so that the distance behind the last array is seen
    return heap.dump(cached)


def list_of(sessions: int) -> bytes:
    """Give a dump whose static holds a list: each session leads on to the next by a field of its own class."""
    heap, following = Heap(), 0
    for _ in range(sessions):
        following = heap.session(heap.values(100), following)
    return heap.dump(following)
