"""The tables of a report: classes, large objects, loaders, collections, threads, strings."""

from __future__ import annotations

import fnmatch

import numpy as np

from dumpagent.analyze.heap.classes import REFERENCES_KIND
from dumpagent.analyze.heap.details import STAT_COUNT, STAT_EMPTY, STAT_SLOTS, STAT_USED, Details
from dumpagent.analyze.heapgraph import HeapGraph
from dumpagent.analyze.model import (
    ClassRow,
    CollectionRow,
    LoaderRow,
    ManyLoaders,
    ObjectRow,
    SparseRow,
    StringRow,
    ThreadRow,
)
from dumpagent.analyze.opened import Opened
from dumpagent.analyze.paths import LOCAL, Labels
from dumpagent.analyze.suspects import SuspectSearch

_LARGE_ARRAYS = 40
_WAY_MOST = 12
_FRAMES_MOST = 60
_STRING_BYTES = 40  # an object of java.lang.String, and the header of its array


def class_rows(graph: HeapGraph, most: int, named: tuple[str, ...] = ()) -> tuple[ClassRow, ...]:
    """Give the classes that keep most alive or are themselves largest, and those whose names match one of `named`."""
    by_class, classes = graph.by_class, graph.opened.classes
    order = np.argsort(-np.maximum(by_class.shallow, by_class.retained // 2), kind="stable")[:most].tolist()
    matching = [
        each
        for each, name in enumerate(classes.names)
        if any(fnmatch.fnmatchcase(name, wanted) for wanted in named)
    ]
    rows = [
        ClassRow(
            classes.names[each], loader_name(graph.opened, each), int(by_class.counts[each]),
            int(by_class.shallow[each]), int(by_class.retained[each]),
        )
        for each in dict.fromkeys([*order, *matching])
        if by_class.counts[each]
    ]  # fmt: skip
    return tuple(sorted(rows, key=lambda row: (-row.shallow_bytes, row.name)))


def loader_name(opened: Opened, class_number: int) -> str:
    """Give the class of the loader of a class; the JVM's own is none."""
    loader = int(opened.classes.heads[class_number, 2])
    number = int(opened.index.numbers(np.array([loader], np.int64))[0]) if loader else -1
    return opened.class_name(number) if number >= 0 else "boot loader" if not loader else "(loader missing)"


def object_rows(graph: HeapGraph, labels: Labels, most: int) -> tuple[ObjectRow, ...]:
    """Give the largest objects that nothing else dominates."""
    retained = graph.retained
    at_roots = np.flatnonzero(retained.idom == 0)
    at_roots = at_roots[at_roots > 0]
    order = at_roots[np.argsort(-retained.bytes[at_roots].astype(np.int64), kind="stable")[:most]]
    rows = list[ObjectRow]()
    for number in order.tolist():
        each = int(retained.order[number])
        name = labels.class_object(each)
        shown = f"class {name}" if name is not None else graph.opened.class_name(each)
        thread = labels.thread_name(each)
        rows.append(
            ObjectRow(
                f"{shown} {thread}" if thread else shown, hex(graph.opened.index.id_of(each)),
                retained.shallow_of(each), int(retained.bytes[number]),
            )
        )  # fmt: skip
    return tuple(rows)


def loader_rows(graph: HeapGraph, most: int) -> tuple[LoaderRow, ...]:
    """Give the class loaders that keep most alive."""
    opened = graph.opened
    loaders, counts = np.unique(opened.classes.heads[opened.classes.ids != 0, 2], return_counts=True)
    numbers = opened.index.numbers(loaders)
    rows = [
        LoaderRow(opened.class_name(number), hex(loader), count, graph.kept_by(number))
        for loader, count, number in zip(loaders.tolist(), counts.tolist(), numbers.tolist(), strict=True)
        if number >= 0
    ]
    return tuple(sorted(rows, key=lambda row: (-row.retained_bytes, row.id))[:most])


def many_loaders(graph: HeapGraph, most: int) -> tuple[ManyLoaders, ...]:
    """Give the classes that are there several times, each time of another loader."""
    opened = graph.opened
    loaders: dict[str, set[int]] = {}
    instances: dict[str, int] = {}
    for number in np.flatnonzero(opened.classes.ids != 0).tolist():
        name = opened.classes.names[number]
        loaders.setdefault(name, set()).add(int(opened.classes.heads[number, 2]))
        instances[name] = instances.get(name, 0) + int(graph.by_class.counts[number])
    rows = [
        ManyLoaders(name, len(found), instances[name]) for name, found in loaders.items() if len(found) > 1
    ]
    return tuple(sorted(rows, key=lambda row: (-row.loaders, -row.instances, row.name))[:most])


def large_arrays(graph: HeapGraph, search: SuspectSearch) -> set[int]:
    """Give the objects on the ways to the longest arrays, which large collections have."""
    opened = graph.opened
    kinds = opened.classes.kinds == REFERENCES_KIND
    elements = opened.edges.elements_of
    floor = 0
    if len(elements) > 1_000_000:  # most are short: the rest is sorted cheaply
        floor = 1000
    places = np.flatnonzero(elements > floor)
    places = places[kinds[opened.edges.class_of[places]] & (graph.number[places] > 0)]
    longest = places[np.argsort(-elements[places].astype(np.int64), kind="stable")[:_LARGE_ARRAYS]]
    return {each for number in longest.tolist() for each in search.way(number)[-_WAY_MOST:]}


def collection_rows(
    graph: HeapGraph, details: Details, search: SuspectSearch, labels: Labels, most: int
) -> tuple[CollectionRow, ...]:
    """Give the collections with the greatest sizes, and who has them."""
    rows = list[CollectionRow]()
    for size, each in sorted(details.largest.tolist(), reverse=True)[:most]:
        if size <= 0:
            continue
        steps = labels.steps(search.way(each)[-_WAY_MOST:])
        own = [step for step in steps if step.is_application] or steps
        holder = f"{own[-1].declared_by}.{own[-1].label}" if own else ""
        opened = graph.opened
        rows.append(
            CollectionRow(
                opened.class_name(each), hex(opened.index.id_of(each)), size, graph.kept_by(each), holder
            )
        )
    return tuple(rows)


def sparse_rows(opened: Opened, details: Details, most: int) -> tuple[SparseRow, ...]:
    """Give the classes of collections that waste most by room that they do not use."""
    stats, reference = details.stats, opened.layout.reference
    waste = (stats[:, STAT_SLOTS] - stats[:, STAT_USED]) * reference
    order = np.argsort(-waste, kind="stable")[:most]
    return tuple(
        SparseRow(
            opened.classes.names[each], int(stats[each, STAT_COUNT]), int(stats[each, STAT_EMPTY]),
            int(stats[each, STAT_SLOTS]), int(stats[each, STAT_USED]), int(waste[each]),
        )
        for each in order.tolist()
        if waste[each] > 0
    )  # fmt: skip


def thread_rows(graph: HeapGraph, labels: Labels, most: int) -> tuple[ThreadRow, ...]:
    """Give the threads that keep most alive."""
    opened = graph.opened
    serials = {thread: serial for serial, thread in opened.thread_of_serial.items()}
    locals_of: dict[int, dict[int, int]] = {}
    for local in opened.locals:
        locals_of.setdefault(local.thread, {})[local.number] = graph.kept_by(local.number)
    rows = list[ThreadRow]()
    for thread in sorted(serials, key=lambda each: (-graph.kept_by(each), each))[:most]:
        held = sorted(locals_of.get(thread, {}).items(), key=lambda item: -item[1])[:5]
        shown = []
        for number, kept in held:
            step = labels.step(thread, number)
            where = f" in {step.label}" if step.kind == LOCAL and step.label else ""
            shown.append(f"{opened.class_name(number)}: {kept:,} bytes{where}")
        rows.append(
            ThreadRow(
                labels.thread_name(thread) or "(unnamed)", hex(opened.index.id_of(thread)), graph.kept_by(thread),
                tuple(shown), tuple(opened.stacks.of_thread(serials[thread], opened.classes.texts)[:_FRAMES_MOST]),
            )
        )  # fmt: skip
    return tuple(rows)


def string_rows(details: Details, most: int, *, show_text: bool) -> tuple[StringRow, ...]:
    """Give the texts that cost most by being there several times."""
    return tuple(
        StringRow(
            each.text if show_text else f"({each.size_bytes} bytes)", each.times,
            (each.times - 1) * (each.size_bytes + _STRING_BYTES),
        )
        for each in details.repeated(most)
    )  # fmt: skip
