"""Finds the name of the thread that ran out of memory, by following references through the heap.

The stack trace names a thread's serial, a root record the thread's object, that its name, the name its characters:
four records, wherever in the heap they lie. Each is looked for by its first bytes at the speed of memory, and believed
only if what follows it is what such a record has; no object in between is looked at.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from dumpagent.dumps.text import printable
from dumpagent.hprof import records
from dumpagent.hprof.source import ByteSource
from dumpagent.hprof.source import KeepOn as KeepOn
from dumpagent.hprof.walk import Walk

_LATIN1 = b"\0"  # Source: JDK java.lang.String, field `coder` (9 and later); 1 is UTF-16
_CHAR, _BYTE = 5, 8  # basic types
_UNKNOWN_END = 1 << 62
_CHUNK_BYTES = 512 * 1024
_BEFORE_BYTES, _AFTER_BYTES = 64, 32 * 1024  # around what is found: a record's start, a large class
_NAME_MOST_BYTES, _OBJECT_MOST_BYTES = 1024, 16 * 1024
_ENDS_BYTES = 32 << 20  # roots stand at the start of the heap records, before JDK 12 at their end
_DEEPEST_INHERITANCE = 16
# How many times what is looked for may stand in another place: half a second; many strings contain "name".
_MISTAKES_MOST = 1_000_000
# How many objects are looked at that only seem to be the thread: bytes like a root's stand in other objects too.
_DECOYS_MOST = 200
_U2, _U4 = struct.Struct(">H"), struct.Struct(">I")
_T = TypeVar("_T")
# Chunk, where the needle lies in it, where the chunk begins in the dump -> what was found there, if it is it.
Accept = Callable[[bytes, int, int], _T | None]


class _GivenUp(Exception):
    """The search has cost what it may cost."""


@dataclass(frozen=True, slots=True)
class _Object:
    """One object and where it lies: the identifier of its class, and the values of its fields."""

    offset: int
    class_id: bytes
    values: bytes


@dataclass(frozen=True, slots=True)
class _Class:
    parent: bytes
    fields: tuple[tuple[bytes, int], ...]  # own instance fields: identifier of the name, bytes of the value


class _Search:
    def __init__(self, source: ByteSource, keep_on: KeepOn) -> None:
        self._source, self._keep_on = source, keep_on
        self._mistakes = 0

    def first(self, needle: bytes, start: int, stop: int, accept: Accept[_T]) -> _T | None:
        """Give what `accept` makes of the first place in [start, stop) where `needle` lies and that it accepts.

        Raises OSError, _GivenUp.
        """
        offset = start
        while offset < stop:
            before = min(_BEFORE_BYTES, offset)
            chunk = self._source.read_at(offset - before, before + _CHUNK_BYTES + _AFTER_BYTES)
            if not self._keep_on(len(chunk)):
                raise _GivenUp
            is_last = len(chunk) < before + _CHUNK_BYTES + _AFTER_BYTES
            # What begins behind this has the bytes that follow it in the next chunk.
            end = min(len(chunk) if is_last else before + _CHUNK_BYTES, before + stop - offset)
            at = chunk.find(needle, before, end + len(needle) - 1)
            while at >= 0:
                found = accept(chunk, at, offset - before)
                if found is not None:
                    return found
                self._mistakes += 1
                if self._mistakes > _MISTAKES_MOST:
                    raise _GivenUp
                at = chunk.find(needle, at + 1, end + len(needle) - 1)
            if is_last:
                break
            offset += _CHUNK_BYTES
        return None


def thread_name(
    source: ByteSource, walk: Walk, *, keep_on: KeepOn = lambda _bytes: True, backwards: bool = True
) -> str | None:
    """Give the name of the thread that ran out of memory; None if the dump does not tell, or `keep_on` ended it.

    A thread that has no name is "": one that was never given one, or an empty one. `walk` has passed the head. `backwards` says that it has passed the heap too, and that `source` can be read from its
    end as cheaply as from its start; gzip cannot. Reads the heap once or twice, four times at most. Raises OSError.
    """
    header, gathered = walk.header, walk.gathered
    heap = walk.chosen
    if header is None or gathered is None or gathered.oom_trace is None or heap is None:
        return None
    try:
        end = max(heap.start, heap.end) if backwards else _UNKNOWN_END
        bounds = _Bounds(header.size_bytes, gathered.heap_start, heap.start, end)
        thread = _Thread(source, header.id_size, bounds, _Search(source, keep_on))
        found = thread.name(gathered.oom_trace[0], backwards=backwards)
    except _GivenUp:
        return None
    # A name is anything that a program made it: line ends and control characters have no place in a log or terminal.
    return None if found is None else printable(found)


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Where to look: strings and classes from `head` to `head_end`, objects from `heap` to `end`."""

    head: int
    head_end: int
    heap: int
    end: int


class _Thread:
    def __init__(self, source: ByteSource, id_size: int, bounds: _Bounds, search: _Search) -> None:
        self._source, self._size, self._search = source, id_size, search
        self._head, self._head_end = bounds.head, bounds.head_end
        self._heap, self._end = bounds.heap, bounds.end
        self._widths = records.value_bytes(self._size)
        self._classes: dict[bytes, _Class | None] = {}

    def name(self, trace_offset: int, *, backwards: bool) -> str | None:
        """Follow the references from the stack trace record whose body lies at `trace_offset`."""
        serials = self._source.read_at(trace_offset, 8)
        # What lies in front comes first: going back is dear in gzip.
        name, value, coder = (self._string_id(field) for field in (b"name", b"value", b"coder"))
        threads, strings = self._class_id(b"java/lang/Thread"), self._class_id(b"java/lang/String")
        if name is None or value is None or threads is None or strings is None or len(serials) < 8:
            return None
        if self._class(threads) is None or self._class(strings) is None:
            return None
        # A trace has u4 trace serial, u4 thread serial; a root has them the other way round.
        thread = self._thread(serials[4:] + serials[:4], threads, backwards=backwards)
        if thread is None:
            return None
        text_id = self._value(thread, threads, name)
        if text_id is None:
            return None
        if not any(text_id):
            return ""
        text = self._object(text_id, thread.offset)
        if text is None:  # the first updates of JDK 8 keep the name as characters
            return self._characters(text_id, thread.offset, _LATIN1)
        array_id = self._value(text, strings, value)
        encoding = self._value(text, strings, coder) if coder else None
        return self._characters(array_id, text.offset, encoding or _LATIN1) if array_id else None

    # -- before the heap ----------------------------------------------------------------------------------------

    def _string_id(self, text: bytes) -> bytes | None:
        """Give the identifier of this string. Its record: header, id, the text."""
        size = self._size
        length = _U4.pack(size + len(text))

        def accept(chunk: bytes, at: int, _base: int) -> bytes | None:
            record = at - size - records.RECORD_BYTES
            if record < 0 or chunk[record] != records.STRING or chunk[record + 5 : record + 9] != length:
                return None
            return chunk[at - size : at]

        return self._search.first(text, self._head, self._head_end, accept)

    def _class_id(self, name: bytes) -> bytes | None:
        """Give the identifier of the class of this name. Its record: header, u4 serial, id, u4 trace serial, id name."""
        name_id, size = self._string_id(name), self._size
        if name_id is None:
            return None
        length = _U4.pack(8 + 2 * size)

        def accept(chunk: bytes, at: int, _base: int) -> bytes | None:
            record = at - 8 - size - records.RECORD_BYTES
            if record < 0 or chunk[record] != records.LOAD_CLASS or chunk[record + 5 : record + 9] != length:
                return None
            return chunk[at - 4 - size : at - 4]

        return self._search.first(name_id, self._head, self._head_end, accept)

    # -- in the heap --------------------------------------------------------------------------------------------

    def _circle(self, needle: bytes, near: int, accept: Accept[_T]) -> _T | None:
        """Search the heap from `near` on to its end, then from its start up to there."""
        found = self._search.first(needle, near, self._end, accept)
        return self._search.first(needle, self._heap, near, accept) if found is None else found

    def _thread(self, serials: bytes, threads: bytes, *, backwards: bool) -> _Object | None:
        """Give the thread whose root has these serials. A root is: u1 tag, id, u4 thread, u4 trace.

        The same bytes stand in harmless objects, with a reference that ends in 08 before two small numbers: a
        MethodTypeForm of JDK 11 has them. So what a root leads to must be a Thread, else the search goes on.
        """
        size = self._size
        refused: set[bytes] = set()

        def accept(chunk: bytes, at: int, base: int) -> _Object | None:
            record = at - size - 1
            if record < 0 or chunk[record] != records.ROOT_THREAD or not any(chunk[record + 1 : at]):
                return None
            thread_id = chunk[record + 1 : at]
            if thread_id in refused:
                return None
            if len(refused) >= _DECOYS_MOST:
                raise _GivenUp
            found = self._object(thread_id, base + record)
            if found and self._descends(found.class_id, threads):
                return found
            refused.add(thread_id)
            return None

        first_end = min(self._end, self._heap + _ENDS_BYTES) if backwards else self._end
        last_start = max(first_end, self._end - _ENDS_BYTES)
        for start, stop in ((self._heap, first_end), (last_start, self._end), (first_end, last_start)):
            found = self._search.first(serials, start, stop, accept)
            if found:
                return found
        return None

    def _descends(self, class_id: bytes, ancestor: bytes) -> bool:
        for _ in range(_DEEPEST_INHERITANCE):
            if class_id == ancestor:
                return True
            found = self._class(class_id)
            if found is None:
                return False
            class_id = found.parent
        return False

    def _object(self, object_id: bytes, near: int) -> _Object | None:
        """Give the object of this identifier. It is: u1 tag, id, u4 trace, id class, u4 bytes, the fields' values."""
        size = self._size

        def accept(chunk: bytes, at: int, base: int) -> _Object | None:
            class_at, start = at + 5 + size, at + 9 + 2 * size
            if start > len(chunk):
                return None
            (length,) = _U4.unpack_from(chunk, start - 4)
            values = chunk[start : start + length]
            if length > _OBJECT_MOST_BYTES or len(values) < length:
                return None
            return _Object(base + at, chunk[class_at : class_at + size], values)

        return self._circle(bytes([records.INSTANCE]) + object_id, near, accept)

    def _class(self, class_id: bytes) -> _Class | None:
        """Give the class of this identifier; classes stand at the start of the heap records."""
        if class_id in self._classes:
            return self._classes[class_id]

        def accept(chunk: bytes, at: int, _base: int) -> _Class | None:
            try:
                return self._read_class(chunk, at)
            except (IndexError, KeyError, struct.error):
                return None

        needle = bytes([records.CLASS_DUMP]) + class_id
        found = self._classes[class_id] = self._search.first(needle, self._heap, self._end, accept)
        return found

    def _read_class(self, chunk: bytes, at: int) -> _Class:
        """Read a CLASS DUMP: u1 tag, id, u4, 6 ids, u4, then constants, statics and fields, each after their u2 count.

        Raises IndexError, KeyError, struct.error.
        """
        size, widths = self._size, self._widths
        parent = chunk[at + 5 + size : at + 5 + 2 * size]
        at += 9 + 7 * size
        (constants,) = _U2.unpack_from(chunk, at)
        at += 2
        for _ in range(constants):
            at += 3 + widths[chunk[at + 2]]
        (statics,) = _U2.unpack_from(chunk, at)
        at += 2
        for _ in range(statics):
            at += size + 1 + widths[chunk[at + size]]
        (count,) = _U2.unpack_from(chunk, at)
        at += 2
        step = size + 1
        fields = [
            (chunk[each : each + size], widths[chunk[each + size]])
            for each in range(at, at + count * step, step)
        ]
        return _Class(parent, tuple(fields))

    def _value(self, found: _Object, class_id: bytes, field_id: bytes) -> bytes | None:
        """Give the value of the field that `class_id` declares; an object has those of its own class first."""
        at, each = 0, found.class_id
        for _ in range(_DEEPEST_INHERITANCE):
            declared = self._class(each)
            if declared is None:
                return None
            for name_id, width in declared.fields:
                if each == class_id and name_id == field_id:
                    return found.values[at : at + width]
                at += width
            if each == class_id:
                return None
            each = declared.parent
        return None

    def _characters(self, array_id: bytes, near: int, coder: bytes) -> str | None:
        """Give the text of an array of bytes or chars. It is: u1 tag, id, u4 trace, u4 elements, u1 type, elements."""
        size = self._size

        def accept(chunk: bytes, at: int, _base: int) -> str | None:
            start = at + 10 + size
            if start > len(chunk):
                return None
            (elements,) = _U4.unpack_from(chunk, start - 5)
            width = {_CHAR: 2, _BYTE: 1}.get(chunk[start - 1])
            if width is None:
                return None
            content = chunk[start : start + min(elements * width, _NAME_MOST_BYTES)]
            if width == 2:
                return content.decode("utf-16-be", "replace")
            return content.decode("latin-1") if coder == _LATIN1 else _utf16(content)

        return self._circle(bytes([records.PRIMITIVE_ARRAY]) + array_id, near, accept)


def _utf16(content: bytes) -> str:
    """Give the text of a string's own bytes, which have the order of the machine that the JVM ran on.

    The dump does not name it. Names are mostly of scripts whose characters share their high byte, or have ASCII in
    between: the order with fewer different high bytes is it, little-endian where both have as many.
    """
    big = len(set(content[0::2])) < len(set(content[1::2]))
    return content.decode("utf-16-be" if big else "utf-16-le", "replace")
