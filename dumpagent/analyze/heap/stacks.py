"""The stacks of the threads of a dump: the FRAME and TRACE records."""

from __future__ import annotations

import struct

from dumpagent.analyze.heap.names import HeapNames
from dumpagent.hprof.facts import java_name

_FRAMES_MOST = 1024
_U4 = struct.Struct(">I")


class Stacks:
    """Collects stacks; gives them by the serial number of their thread."""

    def __init__(self, id_size: int) -> None:
        self._id_size = id_size
        self._frames: dict[bytes, bytes] = {}
        self._traces: dict[int, bytes] = {}
        self._class_names: dict[bytes, int] = {}

    def pass_class(self, body: bytes) -> None:
        size = self._id_size
        self._class_names[body[:4]] = int.from_bytes(body[8 + size : 8 + 2 * size], "big")

    def pass_frame(self, body: bytes) -> None:
        self._frames[body[: self._id_size]] = body

    def pass_trace(self, body: bytes) -> None:
        thread = _U4.unpack_from(body, 4)[0] if len(body) >= 12 else 0
        if thread:
            self._traces.setdefault(thread, body[12 : 12 + _FRAMES_MOST * self._id_size])

    def of_thread(self, serial: int, names: HeapNames) -> list[str]:
        """Give the frames of a thread, innermost first, as `package.Class.method(File:line)`."""
        trace, size = self._traces.get(serial, b""), self._id_size
        return [
            self._text(self._frames.get(trace[at : at + size], b""), names)
            for at in range(0, len(trace) - size + 1, size)
        ]

    def _text(self, frame: bytes, names: HeapNames) -> str:
        size = self._id_size
        if len(frame) < 4 * size + 8:
            return "(frame missing in the dump)"
        method, file = (names.raw(int.from_bytes(frame[at : at + size], "big")) for at in (size, 3 * size))
        name_id = self._class_names.get(frame[4 * size : 4 * size + 4])
        class_name = java_name(names.text(name_id)) if name_id is not None else "?"
        line = int.from_bytes(frame[4 * size + 4 : 4 * size + 8], "big", signed=True)
        shown = (file or b"").decode("utf-8", "replace")
        # Source: JDK heapDumper.cpp, DumperSupport: line > 0 normal, -1 unknown, -2 compiled, -3 native.
        place = (
            "Native Method"
            if line == -3
            else f"{shown}:{line}"
            if shown and line > 0
            else shown or "Unknown Source"
        )
        return f"{class_name}.{(method or b'?').decode('utf-8', 'replace')}({place})"
