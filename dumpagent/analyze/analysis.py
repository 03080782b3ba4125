"""The whole analysis of one dump, from its bytes to what a report says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dumpagent.analyze import parts
from dumpagent.analyze.arrays import Arrays
from dumpagent.analyze.heap.details import Details, text_from
from dumpagent.analyze.heap.stream import Progress
from dumpagent.analyze.heapgraph import HeapGraph, build
from dumpagent.analyze.memory import Budget
from dumpagent.analyze.model import SCHEMA_VERSION, Analysis, DumpPart, HeapPart, StringPart
from dumpagent.analyze.opened import Opened, open_heap
from dumpagent.analyze.paths import Labels
from dumpagent.analyze.suspects import SuspectSearch
from dumpagent.dumps.text import iso_time
from dumpagent.hprof.records import PRIMITIVE_ARRAY, RECORD_BYTES
from dumpagent.hprof.source import ByteSource

Steps = Callable[[str], Progress]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a dump before its heap is read."""

    name: str
    size_bytes: int
    jvm: str | None = None
    cause: str = "unknown"
    oom_thread: str | None = None
    oom_stack: tuple[str, ...] = ()
    damage: str = ""


@dataclass(frozen=True, slots=True)
class Wishes:
    """How much a report says: `rows` of each table at most, strings at all, their text, classes that must be in it."""

    rows: int = 20
    strings: bool = True
    show_text: bool = True
    named_classes: tuple[str, ...] = ()


def analyze(
    source: ByteSource,
    known: Subject,
    budget: Budget,
    *,
    wishes: Wishes,
    step: Steps,
    spill: str | None = None,
) -> Analysis:
    """Analyze the dump in `source`. `step` is called with the name of each step, and gives who hears of its progress.

    Raises NoHeap, NeedsMoreMemory, OSError, MemoryError.
    """
    arrays = Arrays(spill=spill)
    opened = open_heap(source, arrays, budget, size_bytes=known.size_bytes, step=step)
    step("finding who keeps what alive")
    graph = build(opened, arrays)
    search = SuspectSearch(graph)
    wanted = search.wanted() | {
        each for texts in graph.thread_texts.values() for pair in texts for each in pair
    }
    wanted |= set(graph.thread_texts) | parts.large_arrays(graph, search)
    details = Details(
        arrays, opened.index, opened.classes, opened.edges.elements_of, graph.number,
        wanted=wanted, is_text=graph.is_text if wishes.strings else None,
    )  # fmt: skip
    opened.read_again(details, step("reading names and collections"))
    details.finish()
    names = _thread_names(graph, details)
    labels = Labels(opened, details.records, names, graph.came_from)
    return Analysis(
        schema_version=SCHEMA_VERSION,
        dump=dump_part(opened, known),
        heap=heap_part(graph),
        suspects=tuple(search.suspects(labels)),
        classes=parts.class_rows(graph, wishes.rows, wishes.named_classes),
        biggest_objects=parts.object_rows(graph, labels, wishes.rows),
        class_loaders=parts.loader_rows(graph, wishes.rows),
        classes_with_many_loaders=parts.many_loaders(graph, wishes.rows),
        largest_collections=parts.collection_rows(graph, details, search, labels, wishes.rows),
        sparse_collections=parts.sparse_rows(opened, details, wishes.rows),
        threads=parts.thread_rows(graph, labels, wishes.rows),
        strings=_string_part(graph, details, wishes),
    )


def _thread_names(graph: HeapGraph, details: Details) -> dict[int, str]:
    """Give the names of threads. A name is the string in the field `name` of the thread."""
    labels = Labels(graph.opened, details.records, {}, graph.came_from)
    names = dict[int, str]()
    for thread, texts in graph.thread_texts.items():
        wanted = labels.value(thread, "name")
        for text, characters in texts:
            record = details.records.get(characters)
            if text == wanted and record and record[0] == PRIMITIVE_ARRAY:
                size = graph.opened.header.id_size
                names[thread] = text_from(record[10 + size :][:1024], record[RECORD_BYTES + size])
    return names


def dump_part(opened: Opened, known: Subject) -> DumpPart:
    """Give which dump it is."""
    damage = opened.passed.damage or known.damage
    return DumpPart(
        name=known.name, size_bytes=known.size_bytes, format=opened.header.format, id_size=opened.header.id_size,
        dump_time=iso_time(opened.header.dump_time_ms / 1000), jvm=known.jvm, cause=known.cause,
        state="truncated" if damage else "complete", damage=damage or None, snapshots=opened.passed.snapshots,
        oom_thread=known.oom_thread, oom_stack=known.oom_stack,
    )  # fmt: skip


def heap_part(graph: HeapGraph) -> HeapPart:
    """Give the heap in numbers."""
    opened = graph.opened
    objects, size_bytes = graph.retained.unreachable(graph.number)
    loaders = np.unique(opened.classes.heads[opened.classes.ids != 0, 2])
    return HeapPart(
        objects=opened.index.count, reachable_objects=graph.walked.count, reachable_bytes=graph.retained.total_bytes,
        unreachable_objects=objects, unreachable_bytes=size_bytes, classes=int((opened.classes.ids != 0).sum()),
        class_loaders=int((loaders != 0).sum()), roots=len(opened.scanned.roots), roots_made_up=opened.roots_made_up,
        references=graph.references, dangling_references=opened.edges.dangling, layout=str(opened.layout),
    )  # fmt: skip


def _string_part(graph: HeapGraph, details: Details, wishes: Wishes) -> StringPart | None:
    if not wishes.strings:
        return None
    rows = parts.string_rows(details, wishes.rows, show_text=wishes.show_text)
    return StringPart(strings=graph.strings, exact=details.forgotten == 0, repeated=rows)
