"""Compiles what an analysis runs, at the installation, so that no user waits for it: `python -m dumpagent.analyze.compile`.

It analyzes a small heap made of all kinds of records, in each way in which a dump can be read.
"""

from __future__ import annotations

import struct

import numpy as np

from dumpagent.analyze.analysis import Subject, Wishes, analyze
from dumpagent.analyze.graph import dominators, referrers
from dumpagent.analyze.growth.measure import measure
from dumpagent.analyze.heap import details, edges
from dumpagent.analyze.memory import Budget
from dumpagent.hprof.source import InMemory

_RECORD = struct.Struct(">BII")
_TEXTS = (
    "java/lang/Object",
    "java/lang/String",
    "java/lang/Thread",
    "java/util/HashMap",
    "value",
    "size",
    "table",
    "name",
)
_OBJECT, _STRING, _THREAD, _MAP, _MAP_TABLE, _CHARACTERS, _A_STRING, _A_THREAD, _A_MAP = (
    8 * each for each in range(100, 109)
)


def _record(tag: int, body: bytes) -> bytes:
    return _RECORD.pack(tag, 0, len(body)) + body


def small_dump(id_size: int) -> bytes:
    """Give a whole dump of a few objects: a thread whose name is a string, and a map with an array."""

    def name(number: int) -> bytes:
        return number.to_bytes(id_size, "big")

    def of_class(number: int, parent: int, fields: list[tuple[int, int]]) -> bytes:
        described = b"".join(name(each) + bytes([kind]) for each, kind in fields)
        return (
            b"\x20"
            + name(number)
            + bytes(4)
            + name(parent)
            + bytes(5 * id_size)
            + struct.pack(">IHHH", 16, 0, 0, len(fields))
            + described
        )

    def instance(number: int, of: int, values: bytes) -> bytes:
        return b"\x21" + name(number) + bytes(4) + name(of) + struct.pack(">I", len(values)) + values

    head = b"JAVA PROFILE 1.0.2\0" + struct.pack(">IQ", id_size, 1_767_268_800_000)
    head += b"".join(_record(1, name(at) + text.encode()) for at, text in enumerate(_TEXTS, 1))
    for serial, each in enumerate((_OBJECT, _STRING, _THREAD, _MAP), 1):
        head += _record(2, struct.pack(">I", serial) + name(each) + bytes(4) + name(serial))
    heap = b"".join(
        [
            of_class(_OBJECT, 0, []), of_class(_STRING, _OBJECT, [(5, 2)]), of_class(_THREAD, _OBJECT, [(8, 2)]),
            of_class(_MAP, _OBJECT, [(6, 10), (7, 2)]),
            b"\x08" + name(_A_THREAD) + struct.pack(">II", 1, 1), b"\x03" + name(_A_MAP) + struct.pack(">Ii", 1, 0),
            b"\x05" + name(_OBJECT),
            b"\x22" + name(_MAP_TABLE) + struct.pack(">II", 0, 2) + name(_OBJECT) + name(_A_STRING) + name(_A_MAP),
            b"\x23" + name(_CHARACTERS) + struct.pack(">II", 0, 4) + b"\x08main",
            instance(_A_STRING, _STRING, name(_CHARACTERS)), instance(_A_THREAD, _THREAD, name(_A_STRING)),
            instance(_A_MAP, _MAP, struct.pack(">I", 2) + name(_MAP_TABLE)),
        ]
    )  # fmt: skip
    return head + _record(0x1C, heap) + _record(0x2C, b"")


def main() -> None:
    """Compile everything, also what only the largest heaps need."""
    for id_size in (8, 4):
        for wide_from in (1 << 32, 0):
            edges.WIDE_FROM = referrers.WIDE_FROM = wide_from
            content = small_dump(id_size)
            budget = Budget(1 << 40, lambda _text: None)
            known = Subject("small", len(content))
            analyze(
                InMemory(content), known, budget, wishes=Wishes(), step=lambda _title: lambda _bytes: None
            )
            measure(InMemory(content), known, budget, step=lambda _title: lambda _bytes: None)
    one, none = np.zeros(1, np.uint32), np.zeros(0, np.uint32)
    dominators.skip_up(one, none, none, 0, one.copy(), one.copy())
    details.forget(np.zeros((4, 4), np.int64), np.zeros((4, details.TEXT_BYTES), np.uint8), 1)


if __name__ == "__main__":
    main()
