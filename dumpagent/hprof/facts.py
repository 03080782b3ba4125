"""What the records outside the heap tell of a dump: its JVM, why it was written, how many classes and threads it has."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence

from dumpagent.dumps.model import Cause, DumpFacts
from dumpagent.hprof import records
from dumpagent.hprof.source import ByteSource, KeepOn

# With dots from the agent of JDK 5 to 8. Source: JDK hprof_io.c and hprof_util.c, signature_to_name.
_OOM_CLASS = (b"java/lang/OutOfMemoryError", b"java.lang.OutOfMemoryError")
_CONSTRUCTOR = (b"<init>",)
_NO_FIELDS = (b"<resolved_references>", b"<init_lock>")  # Source: JDK heapDumper.cpp, dump_static_fields
_CLASS_OF_CLASSES = (b"java/lang/Class", b"java.lang.Class")
# A constant of java.lang.VersionProps (sun.misc.Version before 9): what `java -version` prints first.
_VERSION = re.compile(rb'(?:openjdk|java) version "[\x20-\x7e]{1,60}')
_HIDDEN = re.compile(r"[+.]0x([0-9a-f]{8,16})\b")
_FRAMES_MOST = 64
_STACK_FRAMES_MOST = 1024
_READ_BYTES = 256 * 1024
_U4 = struct.Struct(">I")


class Gathered:
    """Collects facts while a walk passes the records; holds a few dozen values, however long the dump is.

    HotSpot writes strings, classes, frames and traces in this order, so each can be told as it passes by. The thread
    that ran out of memory gets a frame OutOfMemoryError.<init> on top of its stack that no code put there.
    Source: JDK heapDumper.cpp, VM_HeapDumper::dump_stack_traces and `_oome_constructor`.
    """

    def __init__(self, id_size: int) -> None:
        self.id_size = id_size
        self.strings = 0
        self.classes = 0
        self.threads = 0
        self.stacks = 0  # traces that have frames
        self.by_agent = False  # written by -agentlib:hprof, which marks no thread
        self.jvm: str | None = None
        self.oom_trace: tuple[int, int] | None = None  # where its body lies: offset, length
        self.oom_frames = 0  # how deep that stack is, without the frame that HotSpot made up
        self.heap_start = 0  # the offset of the first heap record
        self.class_of_classes: bytes | None = None  # the identifier of java.lang.Class
        self.no_fields: set[bytes] = set()  # names of references that HotSpot lists among the static fields
        self._class_name: bytes | None = None
        self._oom_name: bytes | None = None
        self._constructor_name: bytes | None = None
        self._oom_class_serial: bytes | None = None
        self._oom_frames: set[bytes] = set()

    def pass_strings(self, chunk: bytes, start: int, stop: int, count: int) -> None:
        """Look through the whole string records in chunk[start:stop]."""
        self.strings += count
        if self._oom_name is None:
            self._oom_name = self._id_of(chunk, start, stop, _OOM_CLASS)
        if self._class_name is None:
            self._class_name = self._id_of(chunk, start, stop, _CLASS_OF_CLASSES)
        if len(self.no_fields) < len(_NO_FIELDS):
            self.no_fields |= {self._id_of(chunk, start, stop, (name,)) or b"" for name in _NO_FIELDS} - {b""}
        if self._constructor_name is None:
            self._constructor_name = self._id_of(chunk, start, stop, _CONSTRUCTOR)
        if self.jvm is None and chunk.find(b' version "', start, stop) >= 0:
            self.jvm = self._version(chunk, start, stop)

    def _version(self, chunk: bytes, start: int, stop: int) -> str | None:
        for found in _VERSION.finditer(chunk, start, stop):
            if self._text_at(chunk, start, found.start(), None):
                return found[0].decode("ascii")
        return None

    def _id_of(self, chunk: bytes, start: int, stop: int, texts: tuple[bytes, ...]) -> bytes | None:
        """Give the identifier of the string record that is exactly one of `texts`, if it lies in chunk[start:stop]."""
        for text in texts:
            at = chunk.find(text, start, stop)
            while at >= 0:
                if self._text_at(chunk, start, at, len(text)):
                    return chunk[at - self.id_size : at]
                at = chunk.find(text, at + 1, stop)
        return None

    def _text_at(self, chunk: bytes, start: int, at: int, length: int | None) -> bool:
        record = at - self.id_size - records.RECORD_BYTES
        if record < start or chunk[record] != records.STRING:
            return False
        return length is None or _U4.unpack_from(chunk, record + 5)[0] == length + self.id_size

    def pass_class(self, chunk: bytes, body: int) -> None:
        """Look at a LOAD CLASS record: u4 serial, id class, u4 stack trace serial, id name."""
        self.classes += 1
        name_at = body + 8 + self.id_size
        name = chunk[name_at : name_at + self.id_size]
        if name == self._oom_name and self._oom_class_serial is None:
            self._oom_class_serial = chunk[body : body + 4]
        elif name == self._class_name and self.class_of_classes is None:
            self.class_of_classes = chunk[body + 4 : body + 4 + self.id_size]

    def pass_frame(self, chunk: bytes, body: int) -> None:
        """Look at a FRAME record: id frame, id method name, id signature, id source, u4 class serial, i4 line."""
        size = self.id_size
        if (
            self._oom_class_serial is not None
            and chunk[body + size : body + 2 * size] == self._constructor_name
            and chunk[body + 4 * size : body + 4 * size + 4] == self._oom_class_serial
            and len(self._oom_frames) < _FRAMES_MOST
        ):
            self._oom_frames.add(chunk[body : body + size])

    def pass_trace(self, chunk: bytes, body: int, offset: int, length: int) -> None:
        """Look at a TRACE record, whose body lies at `offset`: u4 serial, u4 thread, u4 frames, the frames' ids."""
        if length > 12:
            self.stacks += 1
        if chunk[body + 4 : body + 8] != bytes(4):
            self.threads += 1
        if self.oom_trace is None and chunk[body + 12 : body + 12 + self.id_size] in self._oom_frames:
            self.oom_trace = offset, length
            self.oom_frames = (length - 12) // self.id_size - 1

    def cause(self, *, all_seen: bool) -> Cause:
        """Say why the dump was written.

        What shows no stack at all cannot exclude an OutOfMemoryError: a dump that is cut, one of a JVM older than 7,
        one that an agent wrote.
        """
        if self.oom_trace:
            return Cause.OOM
        return Cause.REQUEST if all_seen and self.stacks and not self.by_agent else Cause.UNKNOWN


def facts_of(header: records.Header, gathered: Gathered, *, all_seen: bool) -> DumpFacts:
    """Give the facts as the other rooms know them."""
    return DumpFacts(
        format=header.format,
        id_size=header.id_size,
        dump_time_ms=header.dump_time_ms,
        jvm=gathered.jvm,
        cause=gathered.cause(all_seen=all_seen),
        classes=gathered.classes,
        threads=gathered.threads,
        oom_frames=gathered.oom_frames,
    )


def java_name(internal: str) -> str:
    """Give a class name as Java people write it: [Ljava/lang/String; is java.lang.String[].

    A hidden class, such as a lambda's, ends in its address, with the slash that jcmd and Class.getName() put there.
    """
    dimensions = len(internal) - len(internal.lstrip("["))
    name = internal[dimensions:]
    if dimensions:
        primitive = {
            "Z": "boolean", "C": "char", "F": "float", "D": "double", "B": "byte", "S": "short", "I": "int", "J": "long",
        }.get(name)  # fmt: skip
        name = primitive or (name[1:-1] if name.startswith("L") and name.endswith(";") else name)
    return _HIDDEN.sub(r"/0x\1", name.replace("/", ".")) + "[]" * dimensions


def text_of(modified_utf8: bytes) -> str:
    """Give a string record's text. Source: JVM specification 4.4.7: NUL is c0 80, a surrogate pair two 3-byte forms."""
    try:
        text = modified_utf8.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return modified_utf8.decode("utf-8", "replace")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def each_record(
    source: ByteSource, ranges: Sequence[tuple[int, int]], keep_on: KeepOn = lambda _bytes: True
) -> Iterator[tuple[int, bytes]]:
    """Give tag and body of the records in `ranges`, which a walk has passed, until `keep_on` ends it. Raises OSError."""
    for start, stop in ranges:
        position = start
        while position < stop:
            chunk = source.read_at(position, min(_READ_BYTES, stop - position))
            if not keep_on(len(chunk)):
                return
            at, end = 0, len(chunk)
            while at + records.RECORD_BYTES <= end:
                tag, length = records.RECORD.unpack_from(chunk, at)
                following = at + records.RECORD_BYTES + length
                if following > end:
                    break
                yield tag, chunk[at + records.RECORD_BYTES : following]
                at = following
            if at == 0:
                if end < records.RECORD_BYTES:
                    return
                # Longer than what is read at once: only a trace of a very deep stack is, and its start is at hand.
                tag, length = records.RECORD.unpack_from(chunk, 0)
                yield tag, chunk[records.RECORD_BYTES :]
                at = records.RECORD_BYTES + length
            position += at


def class_names(
    source: ByteSource, id_size: int, ranges: Sequence[tuple[int, int]], wanted: set[bytes]
) -> dict[bytes, str]:
    """Give the Java names of these classes from the records in `ranges`. Raises OSError."""
    name_ids: dict[bytes, bytes] = {}
    for tag, record in each_record(source, ranges):
        if tag == records.LOAD_CLASS and record[4 : 4 + id_size] in wanted:
            name_ids[record[4 : 4 + id_size]] = record[8 + id_size : 8 + 2 * id_size]
    needed, texts = set(name_ids.values()), {}
    for tag, record in each_record(source, ranges):
        if tag == records.STRING and record[:id_size] in needed:
            texts[record[:id_size]] = java_name(text_of(record[id_size:]))
    return {class_id: texts[name_id] for class_id, name_id in name_ids.items() if name_id in texts}


def class_ids(
    source: ByteSource, id_size: int, ranges: Sequence[tuple[int, int]], names: set[str]
) -> dict[bytes, str]:
    """Give the identifiers of the classes of these Java names, each with its name. Raises OSError."""
    internal = {name.replace(".", "/").encode(): name for name in names} | {
        name.encode(): name for name in names
    }
    texts: dict[bytes, str] = {}
    for tag, record in each_record(source, ranges):
        if tag == records.STRING and record[id_size:] in internal:
            texts[record[:id_size]] = internal[record[id_size:]]
    return {
        record[4 : 4 + id_size]: texts[record[8 + id_size : 8 + 2 * id_size]]
        for tag, record in each_record(source, ranges)
        if tag == records.LOAD_CLASS and record[8 + id_size : 8 + 2 * id_size] in texts
    }


def oom_stack(
    source: ByteSource,
    header: records.Header,
    gathered: Gathered,
    ranges: Sequence[tuple[int, int]],
    keep_on: KeepOn = lambda _bytes: True,
) -> tuple[str, ...]:
    """Give the stack of the thread that ran out of memory, innermost frame first, as `package.Class.method(File:line)`.

    Empty if the dump tells of none; at most 1024 frames (`Gathered.oom_frames` says how many there are); a `?` stands
    for what `keep_on` left unread. Reads the records outside the heap up to three times more. Raises OSError.
    """
    if gathered.oom_trace is None:
        return ()
    size = header.id_size
    offset, length = gathered.oom_trace
    # The first frame is the one that HotSpot made up.
    body = source.read_at(offset, min(length, 12 + (_STACK_FRAMES_MOST + 1) * size))[12 + size :]
    frame_ids = [body[at : at + size] for at in range(0, len(body) - size + 1, size)]
    frames = _frames(source, size, ranges, offset, set(frame_ids), keep_on)
    serials = {frame[4 * size : 4 * size + 4] for frame in frames.values()}
    class_names: dict[bytes, bytes] = {}
    for tag, record in each_record(source, ranges, keep_on):
        if tag == records.LOAD_CLASS and record[:4] in serials:
            class_names[record[:4]] = record[8 + size : 8 + 2 * size]
    ids = set(class_names.values())
    for frame in frames.values():
        ids |= {frame[size : 2 * size], frame[3 * size : 4 * size]}
    texts: dict[bytes, str] = {}
    for tag, record in each_record(source, ranges, keep_on):
        if tag == records.STRING and record[:size] in ids:
            texts[record[:size]] = text_of(record[size:])
    return tuple(_frame_text(frames[i], size, class_names, texts) for i in frame_ids if i in frames)


def _frames(
    source: ByteSource,
    size: int,
    ranges: Sequence[tuple[int, int]],
    trace: int,
    wanted: set[bytes],
    keep_on: KeepOn,
) -> dict[bytes, bytes]:
    """Give the FRAME records of these identifiers. HotSpot writes a stack's frames right before its trace."""
    found: dict[bytes, bytes] = {}
    head = struct.pack(">BII", records.FRAME, 0, 8 + 4 * size)
    window_at = max(0, trace - _READ_BYTES)
    window = source.read_at(window_at, trace - window_at)
    at = window.find(head)
    while at >= 0:
        record = window[at + len(head) : at + len(head) + 8 + 4 * size]
        if record[:size] in wanted and len(record) == 8 + 4 * size:
            found[record[:size]] = record
        at = window.find(head, at + len(head))
    if len(found) < len(wanted):
        for tag, record in each_record(source, ranges, keep_on):
            if tag == records.FRAME and record[:size] in wanted:
                found[record[:size]] = record
    return found


def _frame_text(frame: bytes, size: int, class_names: dict[bytes, bytes], texts: dict[bytes, str]) -> str:
    method = texts.get(frame[size : 2 * size], "?")
    file = texts.get(frame[3 * size : 4 * size])
    class_name = java_name(texts.get(class_names.get(frame[4 * size : 4 * size + 4], b""), "?"))
    line = int.from_bytes(frame[4 * size + 4 : 4 * size + 8], "big", signed=True)
    # Source: JDK heapDumper.cpp, DumperSupport: line > 0 normal, -1 unknown, -2 compiled, -3 native.
    if line == -3:
        place = "Native Method"
    elif file and line > 0:
        place = f"{file}:{line}"
    else:
        place = file or "Unknown Source"
    return f"{class_name}.{method}({place})"
