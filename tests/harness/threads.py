"""Heap dumps made by hand in which the thread that ran out of memory has a name.

Source: as in hprof.py; JDK java.lang.Thread and java.lang.String, their fields.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tests.harness.hprof import END, SEGMENT, Maker, record

_THREAD, _STRING, _WORKER, _OBJECT = 0x2001, 0x2002, 0x2003, 0x2004  # classes
_NAME, _VALUE, _CODER, _DAEMON, _TASK = 101, 102, 103, 104, 105  # names of fields
_THE_THREAD, _THE_NAME, _THE_ARRAY = 0x7001, 0x7002, 0x7003
_REFERENCE, _BOOLEAN, _CHAR, _BYTE = 2, 4, 5, 8


@dataclass(frozen=True)
class NamedThread:
    """The pieces of such a dump, to be put in any order. `coder` is None as before JDK 9: the value is chars."""

    make: Maker
    value: bytes
    coder: int | None = 0
    subclass: bool = True

    def head(self) -> bytes:
        make = self.make
        texts = {
            _NAME: "name", _VALUE: "value", _CODER: "coder", _DAEMON: "daemon", _TASK: "task", 106: "rename",
            111: "java/lang/Thread", 112: "java/lang/String", 113: "com/acme/Worker", 114: "java/lang/Object",
        }  # fmt: skip
        classes = {_THREAD: 111, _STRING: 112, _WORKER: 113, _OBJECT: 114}
        return b"".join(
            [
                make.head(),
                *(make.string(number, text) for number, text in texts.items()),
                *(make.load_class(10 + name, name, class_id=number) for number, name in classes.items()),
            ]
        )

    def classes(self) -> bytes:
        coder = [(_CODER, _BYTE)] if self.coder is not None else []
        return b"".join(
            [
                self._class(_OBJECT, 0, []),
                self._class(_STRING, _OBJECT, [(_VALUE, _REFERENCE), *coder]),
                self._class(_THREAD, _OBJECT, [(_DAEMON, _BOOLEAN), (_NAME, _REFERENCE)]),
                self._class(_WORKER, _THREAD, [(_TASK, _REFERENCE), (_NAME, _REFERENCE)]),
            ]
        )

    def root(self) -> bytes:
        """Give the root of another thread, and that of the one of which Maker.head tells."""
        make = self.make
        return b"".join(
            b"\x08" + make.id(thread) + struct.pack(">II", serial, trace)
            for thread, serial, trace in ((0x7000, 1, 2), (_THE_THREAD, 2, 3))
        )

    def thread(self) -> bytes:
        make = self.make
        values = b"\1" + make.id(_THE_NAME)
        if self.subclass:
            return self._instance(_THE_THREAD, _WORKER, make.id(0x7777) * 2 + values)
        return self._instance(_THE_THREAD, _THREAD, values)

    def name(self) -> bytes:
        coder = b"" if self.coder is None else bytes([self.coder])
        return self._instance(_THE_NAME, _STRING, self.make.id(_THE_ARRAY) + coder)

    def array(self) -> bytes:
        kind, width = (_CHAR, 2) if self.coder is None else (_BYTE, 1)
        count = struct.pack(">IB", len(self.value) // width, kind)
        return b"\x23" + self.make.id(_THE_ARRAY) + bytes(4) + count + self.value

    def heap(self) -> bytes:
        return self.classes() + self.root() + self.thread() + self.name() + self.array()

    def dump(self, *segments: bytes) -> bytes:
        """Give a whole dump with these segments, or with everything in one."""
        return (
            self.head() + b"".join(record(SEGMENT, body) for body in segments or (self.heap(),)) + record(END)
        )

    def _class(self, number: int, parent: int, fields: list[tuple[int, int]]) -> bytes:
        make = self.make
        ids = make.id(number) + bytes(4) + make.id(parent) + make.id(0) * 5
        listed = b"".join(make.id(name) + bytes([kind]) for name, kind in fields)
        # A constant and a static field, which have to be passed over.
        constant = struct.pack(">HHBI", 1, 7, 10, 4711)
        static = struct.pack(">H", 1) + make.id(_TASK) + bytes([_REFERENCE]) + make.id(0)
        return b"\x20" + ids + bytes(4) + constant + static + struct.pack(">H", len(fields)) + listed

    def _instance(self, number: int, class_id: int, values: bytes) -> bytes:
        make = self.make
        return (
            b"\x21" + make.id(number) + bytes(4) + make.id(class_id) + struct.pack(">I", len(values)) + values
        )
