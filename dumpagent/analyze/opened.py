"""One heap dump, read into a graph: the step from bytes to numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.heap.classes import Classes, read_classes
from dumpagent.analyze.heap.edges import OBJECTS_MOST, Edges
from dumpagent.analyze.heap.index import BYTES_PER_PAGE, ObjectIndex
from dumpagent.analyze.heap.names import HeapNames
from dumpagent.analyze.heap.scan import ROOT_ID, ROOT_KIND, ROOT_THREAD, HeapCount, UnalignedIdentifiers
from dumpagent.analyze.heap.segments import HeapReader, Passed, read_heap
from dumpagent.analyze.heap.sizes import HeapLayout, learn_layout, static_bytes
from dumpagent.analyze.heap.stacks import Stacks
from dumpagent.analyze.heap.stream import Progress, Stream
from dumpagent.analyze.memory import Budget
from dumpagent.analyze.native import Array
from dumpagent.errors import DumpagentError
from dumpagent.hprof import records
from dumpagent.hprof.source import ByteSource

JNI_LOCAL, JAVA_FRAME, NATIVE_STACK, STICKY_CLASS, THREAD_BLOCK, THREAD_OBJECT = (
    0x02,
    0x03,
    0x04,
    0x05,
    0x06,
    0x08,
)
# Not of the format: a field of java.lang.Class leads there, and a dump has no fields of those objects.
OF_A_CLASS = 0x100
_CLASS_VALUES = "java.lang.ClassValue$ClassValueMap"
_OF_A_THREAD = (JNI_LOCAL, JAVA_FRAME, NATIVE_STACK, THREAD_BLOCK)
# What a root record of Android says beside the object: not a root that keeps anything alive.
_UNREACHABLE_ROOT = 0x90


class NoHeap(DumpagentError):
    """There is no heap dump to analyze."""


@dataclass(frozen=True, slots=True)
class Local:
    """An object that a thread's stack holds: the number of the thread's object, the frame's place in the stack."""

    thread: int
    thread_serial: int
    frame: int
    number: int


@dataclass(slots=True)
class Opened:
    """The objects of a dump as numbers, before anything is known of who keeps whom alive."""

    source: ByteSource
    header: records.Header
    index: ObjectIndex
    classes: Classes
    class_numbers: Array  # the object of each class; -1: it has none
    layout: HeapLayout
    edges: Edges
    roots: Array
    root_kinds: dict[int, int]
    thread_of_serial: dict[int, int]
    locals: list[Local]
    own_starts: dict[int, int]
    stacks: Stacks
    passed: Passed
    scanned: HeapCount
    roots_made_up: bool
    size_bytes: int
    snapshot: int  # which of the file's snapshots it is, from 1

    def read_again(self, reader: HeapReader, progress: Progress) -> Passed:
        """Lead a reader through the heap once more. Raises OSError."""
        stream = Stream(self.source, size_bytes=self.size_bytes, progress=progress)
        return read_heap(stream, reader, wanted=self.snapshot)

    def class_of(self, number: int) -> int:
        return int(self.edges.class_of[number])

    def class_name(self, number: int) -> str:
        return self.classes.names[self.class_of(number)]


def open_heap(
    source: ByteSource,
    arrays: Arrays,
    budget: Budget,
    *,
    size_bytes: int,
    step: Callable[[str], Progress],
) -> Opened:
    """Read the dump twice. `step` is called with the name of each reading, and gives who is told of its progress.

    Raises NoHeap, NeedsMoreMemory, OSError.
    """
    start = next(Stream(source).pieces(), b"")
    try:
        header = records.read_header(start[: records.HEADER_MOST_BYTES])
    except records.NotHprof as error:
        raise NoHeap(f"it is not a heap dump: {error}", hint="name a .hprof or .hprof.gz file") from error
    if header is None:
        raise NoHeap("it is empty or cut inside its header", hint="name a whole heap dump")
    shift, snapshot = 3, 1
    while True:
        names, stacks, name_ids = HeapNames(header.id_size), Stacks(header.id_size), dict[int, int]()
        scan = HeapCount(
            arrays, id_size=header.id_size, shift=shift, pages_expected=64 + 2 * (size_bytes >> 20),
            pages_most=budget.limit_bytes // 2 // BYTES_PER_PAGE,
        )  # fmt: skip
        try:
            passed = read_heap(
                Stream(source, size_bytes=size_bytes, progress=step("counting objects")), scan,
                other=_others(header.id_size, name_ids, stacks), strings=names.pass_run, wanted=snapshot,
            )  # fmt: skip
        except UnalignedIdentifiers:
            shift = 0
            continue
        if passed.whole <= snapshot:
            break
        snapshot = passed.whole  # the last one counts, as in `inspect`
    index = scan.index
    count = index.finish()
    if scan.no_addresses > count // 100:
        raise NoHeap("its identifiers are no addresses of 47 bits", hint="such dumps cannot be analyzed")
    if count == 0:
        raise NoHeap("it has no objects: its heap is empty or cut before it", hint="name a whole heap dump")
    if index.count > OBJECTS_MOST:
        raise NoHeap(f"it has {index.count:,} objects", hint=f"at most {OBJECTS_MOST:,} can be analyzed")
    budget.expect(index.count, scan.references_most, index.size_bytes)
    classes = read_classes(scan.class_records, scan.class_count, header.id_size, name_ids, names)
    class_numbers = np.where(classes.ids != 0, index.numbers(classes.ids), -1)
    sticky = set(scan.roots[scan.roots[:, ROOT_KIND] == STICKY_CLASS, ROOT_ID].tolist())
    always = np.isin(classes.ids, np.fromiter(sticky, np.int64, len(sticky)))
    edges = Edges(
        arrays, index, classes, np.where(always, -1, class_numbers), references_most=scan.references_most
    )
    stream = Stream(source, size_bytes=size_bytes, progress=step("reading references"))
    again = read_heap(stream, edges, wanted=snapshot)
    edges.finish()
    layout = learn_layout(scan.array_samples, index, header.id_size)
    opened = Opened(
        source=source, header=header, index=index, classes=classes, class_numbers=class_numbers, layout=layout, edges=edges,
        roots=np.zeros(0, np.int64), root_kinds={}, thread_of_serial={}, locals=[], own_starts={}, stacks=stacks,
        passed=passed if passed.damage else again, scanned=scan, roots_made_up=False,
        size_bytes=size_bytes, snapshot=snapshot,
    )  # fmt: skip
    _add_class_objects(opened)
    _add_roots(opened)
    return opened


def _others(id_size: int, name_ids: dict[int, int], stacks: Stacks) -> Callable[[int, bytes], None]:
    def other(tag: int, body: bytes) -> None:
        if tag == records.LOAD_CLASS:
            class_id = int.from_bytes(body[4 : 4 + id_size], "big")
            name_ids[class_id] = int.from_bytes(body[8 + id_size : 8 + 2 * id_size], "big")
            stacks.pass_class(body)
        elif tag == records.FRAME:
            stacks.pass_frame(body)
        elif tag == records.TRACE:
            stacks.pass_trace(body)

    return other


def _add_class_objects(opened: Opened) -> None:
    """Make the class objects what the dump does not say they are: objects of java.lang.Class, with their references."""
    classes, edges, index = opened.classes, opened.edges, opened.index
    mirror = classes.by_name.get("java.lang.Class", classes.unknown)
    own_bytes = static_bytes(classes, opened.layout)
    of_statics = index.numbers(classes.statics[:, 2]) if len(classes.statics) else np.zeros(0, np.int64)
    super_numbers = np.where(classes.supers >= 0, opened.class_numbers[classes.supers], -1)
    others = [index.numbers(classes.heads[:, column]) for column in (2, 3, 4)]
    for number, each in enumerate(opened.class_numbers.tolist()):
        if each < 0 or edges.class_of[each] != 0xFFFFFFFF:
            continue
        edges.class_of[each] = mirror
        edges.elements_of[each] = own_bytes[number]
        found = [int(super_numbers[number]), *(int(other[number]) for other in others)]
        found += of_statics[classes.static_starts[number] : classes.static_starts[number + 1]].tolist()
        edges.append(each, [target for target in found if target >= 0 and target != each])
    edges.class_of[edges.class_of == 0xFFFFFFFF] = classes.unknown


def _add_roots(opened: Opened) -> None:
    """Sort the roots: what a thread's stack holds belongs to the thread, all else keeps itself alive."""
    roots, edges = opened.scanned.roots, opened.edges
    numbers = opened.index.numbers(roots[:, ROOT_ID])
    threads = opened.classes.descending_from("java.lang.Thread")
    for at in np.flatnonzero((roots[:, ROOT_KIND] == THREAD_OBJECT) & (numbers >= 0)).tolist():
        if threads[edges.class_of[numbers[at]]] or not threads.any():
            opened.thread_of_serial[int(roots[at, ROOT_THREAD])] = int(numbers[at])
    of_threads: dict[int, list[int]] = {}
    strong = list[int]()
    for at, number in enumerate(numbers.tolist()):
        kind = int(roots[at, ROOT_KIND])
        if number < 0 or kind == _UNREACHABLE_ROOT:
            continue
        thread = opened.thread_of_serial.get(int(roots[at, ROOT_THREAD])) if kind in _OF_A_THREAD else None
        if thread is not None and thread != number:
            opened.locals.append(Local(thread, int(roots[at, ROOT_THREAD]), int(roots[at, 3]), number))
            of_threads.setdefault(thread, []).append(number)
        else:
            strong.append(number)
            opened.root_kinds.setdefault(number, kind)
    for number in _values_of_classes(opened):
        strong.append(number)
        opened.root_kinds.setdefault(number, OF_A_CLASS)
    for thread, held in of_threads.items():
        opened.own_starts[thread] = int(edges.starts[thread])
        edges.append(thread, list(dict.fromkeys(held)))
    if not set(opened.root_kinds.values()) - {OF_A_CLASS}:
        # Cut before its roots, which JDK 11 and older write last: classes and threads stand for them.
        strong = [each for each in opened.class_numbers.tolist() if each >= 0]
        strong += np.flatnonzero(threads[edges.class_of]).tolist()
        opened.roots_made_up = True
    opened.roots = np.unique(np.array(strong, np.int64))


def _values_of_classes(opened: Opened) -> list[int]:
    """Give the maps in which classes keep what a ClassValue has computed for each: as good as statics.

    Source: JDK, java.lang.Class.classValueMap; hprof_b_spec, CLASS DUMP, which lists static fields alone.
    """
    each = opened.classes.by_name.get(_CLASS_VALUES)
    return [] if each is None else np.flatnonzero(opened.edges.class_of == each).tolist()
