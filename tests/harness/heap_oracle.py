"""A second reader of heap dumps, as plain as can be: dictionaries, and dominators by sets that shrink.

It shares no code with what it judges. For dumps of some ten thousand objects.
Source: JDK heapDumper.cpp, comment "HPROF binary format".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_WIDTH = {4: 1, 5: 2, 6: 4, 7: 8, 8: 1, 9: 2, 10: 4, 11: 8}


@dataclass
class Oracle:
    """Objects by identifier: their class's name, and what they refer to."""

    id_size: int = 8
    names: dict[int, str] = field(default_factory=dict)
    class_names: dict[int, str] = field(default_factory=dict)
    supers: dict[int, int] = field(default_factory=dict)
    fields: dict[int, list[tuple[str, int]]] = field(default_factory=dict)
    edges: dict[int, list[int]] = field(default_factory=dict)
    classes: dict[int, str] = field(default_factory=dict)
    roots: set[int] = field(default_factory=set)
    locals: list[tuple[int, int]] = field(default_factory=list)
    threads: dict[int, int] = field(default_factory=dict)
    sticky: set[int] = field(default_factory=set)


def read(content: bytes) -> Oracle:
    """Read a whole dump."""
    at = content.index(b"\0") + 1
    size = struct.unpack_from(">I", content, at)[0]
    oracle, at = Oracle(size), at + 12
    heaps: list[tuple[int, int]] = []
    while at < len(content):
        tag, length = content[at], struct.unpack_from(">I", content, at + 5)[0]
        body, at = at + 9, at + 9 + length
        if tag == 1:
            oracle.names[_id(content, body, size)] = content[body + size : at].decode("utf-8", "replace")
        elif tag == 2:
            name = oracle.names[_id(content, body + 8 + size, size)]
            oracle.class_names[_id(content, body + 4, size)] = name
        elif tag == 0x1C:
            heaps.append((body, at))
    instances: list[tuple[int, int, int, int]] = []
    for start, end in heaps:
        _segment(oracle, content, start, end, instances)
    for each, of, start, length in instances:
        oracle.classes[each] = oracle.class_names[of]
        oracle.edges[each] = [*_references(oracle, content, of, start, start + length), of]
    for serial, each in oracle.locals:
        if serial in oracle.threads and oracle.threads[serial] != each:
            oracle.edges[oracle.threads[serial]].append(each)
        else:
            oracle.roots.add(each)
    return oracle


def _id(content: bytes, at: int, size: int) -> int:
    return int.from_bytes(content[at : at + size], "big")


def _segment(
    oracle: Oracle, content: bytes, at: int, end: int, instances: list[tuple[int, int, int, int]]
) -> None:
    size = oracle.id_size
    while at < end:
        tag, each = content[at], _id(content, at + 1, size)
        if tag == 0x21:
            length = struct.unpack_from(">I", content, at + 5 + 2 * size)[0]
            instances.append((each, _id(content, at + 5 + size, size), at + 9 + 2 * size, length))
            at += 9 + 2 * size + length
        elif tag == 0x22:
            count = struct.unpack_from(">I", content, at + 5 + size)[0]
            of, start = _id(content, at + 9 + size, size), at + 9 + 2 * size
            oracle.classes[each] = oracle.class_names[of]
            oracle.edges[each] = [*(_id(content, start + k * size, size) for k in range(count)), of]
            at = start + count * size
        elif tag == 0x23:
            count, kind = struct.unpack_from(">IB", content, at + 5 + size)
            oracle.classes[each], oracle.edges[each] = {5: "[C", 8: "[B", 10: "[I"}.get(kind, f"[{kind}"), []
            at += 10 + size + count * _WIDTH[kind]
        elif tag == 0x20:
            at = _class(oracle, content, at)
        else:
            if tag == 8:
                oracle.threads[struct.unpack_from(">I", content, at + 1 + size)[0]] = each
            if tag in (2, 3, 4, 6):
                oracle.locals.append((struct.unpack_from(">I", content, at + 1 + size)[0], each))
            else:
                oracle.roots.add(each)
            if tag == 5:
                oracle.sticky.add(each)
            at += 1 + size + {1: size, 2: 8, 3: 8, 4: 4, 6: 4, 8: 8}.get(tag, 0)


def _class(oracle: Oracle, content: bytes, at: int) -> int:
    size, count = oracle.id_size, 0
    each, above = _id(content, at + 1, size), _id(content, at + 5 + size, size)
    oracle.supers[each], oracle.classes[each] = above, "java/lang/Class"
    oracle.edges[each] = [_id(content, at + 5 + k * size, size) for k in (1, 2, 3, 4)]
    at += 9 + 7 * size + 2  # no JVM writes constants
    (count,), at = struct.unpack_from(">H", content, at), at + 2
    for _ in range(count):
        kind = content[at + size]
        if kind == 2:
            oracle.edges[each].append(_id(content, at + size + 1, size))
        at += size + 1 + (size if kind == 2 else _WIDTH[kind])
    (count,), at = struct.unpack_from(">H", content, at), at + 2
    oracle.fields[each] = [
        (oracle.names[_id(content, at + k * (size + 1), size)], content[at + k * (size + 1) + size])
        for k in range(count)
    ]
    end: int = at + count * (size + 1)
    return end


def _references(oracle: Oracle, content: bytes, of: int, at: int, end: int) -> list[int]:
    found, line, each = list[int](), list[str](), of
    while each:
        line.append(oracle.class_names[each])
        each = oracle.supers[each]
    weak = {"java/lang/ref/WeakReference", "java/lang/ref/PhantomReference"} & set(line)
    each = of
    while each and at < end:
        for name, kind in oracle.fields[each]:
            if kind == 2 and not (
                weak and name == "referent" and oracle.class_names[each] == "java/lang/ref/Reference"
            ):
                found.append(_id(content, at, oracle.id_size))
            at += oracle.id_size if kind == 2 else _WIDTH[kind]
        each = oracle.supers[each]
    return found


def reachable(oracle: Oracle, without: int | None = None) -> set[int]:
    """Give what the roots lead to, when one object is taken away."""
    seen, todo = set[int](), [each for each in oracle.roots if each in oracle.classes and each != without]
    seen.update(todo)
    while todo:
        for target in oracle.edges[todo.pop()]:
            if target in oracle.classes and target not in seen and target != without:
                seen.add(target)
                todo.append(target)
    return seen
