"""Names who holds the memory: takes where memory gathers, and asks for the way to there."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from dumpagent.analyze.graph.accumulation import (
    Accumulation,
    accumulations,
    add_classes_below,
    small_children,
)
from dumpagent.analyze.heapgraph import HeapGraph
from dumpagent.analyze.model import Content, HolderRow, PathStep, Suspect
from dumpagent.analyze.native import Array
from dumpagent.analyze.opened import OF_A_CLASS, Opened
from dumpagent.analyze.paths import CLASS_VALUE_ENTRY, ELEMENT, LOCAL, STATIC, Hop, Labels, Ways, is_jdk

_PLACES_MOST = 250
_SAMPLED_MOST = 40
_SAMPLES = 24
_PIECES_MOST = 20_000
_SEVERAL = 3
_REFERRERS_MOST = 4
_SUSPECTS_MOST = 12
_LEAST_SHARE = 0.01
_SUSPECT_SHARE = 0.05
_CONTENTS = 5
_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True, eq=False)
class Gathering:
    """Where memory gathers, with the ways to there. Of small pieces below something that says nothing (the roots, a class

    loader, a class) `ways` are those to a sample of them; `size_bytes` is then what pieces of that class keep.
    """

    found: Accumulation
    each: int  # the object; -1: the roots
    size_bytes: int
    ways: tuple[tuple[int, ...], ...]
    small: Array = field(
        default_factory=lambda: np.zeros(0, np.uint32)
    )  # numbers of the pieces, as many as are looked at
    pieces: int = 0
    piece_class: str = ""


class SuspectSearch:
    """Looks for suspects in two steps: `places` says whose records are needed, `suspects` names them."""

    def __init__(self, graph: HeapGraph) -> None:
        self._graph = graph
        opened = graph.opened
        self._threads = opened.classes.descending_from("java.lang.Thread")
        self._loaders = opened.classes.descending_from("java.lang.ClassLoader")
        self._mirror = opened.classes.by_name.get("java.lang.Class", -1)
        self._class_objects = frozenset(int(each) for each in opened.class_numbers if each >= 0)
        starts = [int(each) for each in opened.class_numbers[graph.permanent] if each >= 0]
        self._ways = Ways(graph.came_from, opened.edges.class_of, starts, self._threads)
        self._several = names_of_several_loaders(opened)
        self.places = self._places()

    def way(self, each: int) -> list[int]:
        """Give the way to an object, from a class, a thread or another root."""
        return self._ways.to(each)

    def wanted(self) -> set[int]:
        """Give the objects whose records are needed to name the ways."""
        found = {each for place in self.places for way in place.ways for each in way}
        for place in self.places[:_SAMPLED_MOST]:
            for each in place.ways[0] if place.ways else ():
                found.update(self._graph.referrers_of(each)[:_REFERRERS_MOST])
        return found

    def _places(self) -> list[Gathering]:
        graph, found = self._graph, list[Gathering]()
        for number, each in enumerate(
            accumulations(graph.retained, graph.opened.edges.class_of)[:_PLACES_MOST]
        ):
            vertex = int(graph.walked.order[each.number]) if each.number else -1
            if not self._says_nothing(vertex, each):
                found.append(Gathering(each, vertex, each.size_bytes, (tuple(self.way(vertex)),)))
            elif number < _SAMPLED_MOST:
                found += self._sampled(each, vertex)
        return found

    def _says_nothing(self, vertex: int, found: Accumulation) -> bool:
        """Say whether an object holds all kinds of things: the roots, a class or its loader, what lists classes."""
        if vertex < 0:
            return True
        if found.is_chain:
            return False
        class_number = self._graph.opened.class_of(vertex)
        if vertex in self._class_objects or self._threads[class_number] or self._loaders[class_number]:
            return True
        if self._graph.opened.class_name(vertex) != "java.lang.Object[]":
            return False
        above, order = self._graph.retained.idom, self._graph.walked.order
        holder = int(above[above[found.number]])  # loader -> list of its classes -> array
        return holder > 0 and bool(self._loaders[self._graph.opened.class_of(int(order[holder]))])

    def _sampled(self, found: Accumulation, vertex: int) -> list[Gathering]:
        """Give a place for each class of which small pieces keep much: with ways to a sample of these."""
        graph = self._graph
        children = small_children(graph.retained, found.number)
        if not len(children):
            return (
                [Gathering(found, vertex, found.size_bytes, (tuple(self.way(vertex)),))]
                if vertex >= 0
                else []
            )
        classes = graph.opened.edges.class_of[graph.walked.order[children]]
        kept = np.bincount(classes, weights=graph.retained.bytes[children].astype(float))
        places = list[Gathering]()
        for class_number in np.argsort(-kept)[:4].tolist():
            if kept[class_number] < _LEAST_SHARE * graph.retained.total_bytes:
                break
            pieces = children[classes == class_number]
            sample = pieces[np.linspace(0, len(pieces) - 1, min(len(pieces), _SAMPLES)).astype(int)]
            ways = list[tuple[int, ...]]()
            for piece in sample.tolist():
                each = int(graph.walked.order[piece])
                for referrer in graph.referrers_of(each)[:_REFERRERS_MOST] or [each]:
                    if graph.number[referrer]:
                        ways.append((*self.way(referrer), *([each] if referrer != each else [])))
            name = graph.opened.classes.names[class_number]
            places.append(
                Gathering(
                    found,
                    vertex,
                    int(kept[class_number]),
                    tuple(ways),
                    pieces[:_PIECES_MOST],
                    len(pieces),
                    name,
                )
            )
        return places

    # -- naming -----------------------------------------------------------------------------------------------------

    def suspects(self, labels: Labels) -> list[Suspect]:
        """Give who holds the memory, most first; places with the same holder are one suspect."""
        groups: dict[str, list[tuple[Gathering, list[Hop], Counter[str]]]] = {}
        for place in self.places:
            owners, first = Counter[str](), list[Hop]()
            for way in place.ways:
                steps = labels.steps(list(way))
                owner = self._owner(steps, way, labels)
                owners[owner] += 1
                if owner == owners.most_common(1)[0][0] and (not first or owners[owner] == 1):
                    first = steps
            if owners:
                owner = owners.most_common(1)[0][0]
                groups.setdefault(_DIGITS.sub("N", owner), []).append((place, first, owners))
        total = self._graph.retained.total_bytes or 1
        ranked = sorted(groups.values(), key=lambda group: -sum(place.size_bytes for place, _, _ in group))
        chosen = [
            group
            for at, group in enumerate(ranked[:_SUSPECTS_MOST])
            if at == 0 or sum(place.size_bytes for place, _, _ in group) >= _SUSPECT_SHARE * total
        ]
        return [self._suspect(group, labels, total) for group in chosen]

    def _owner(self, steps: list[Hop], way: tuple[int, ...], labels: Labels) -> str:
        """Name who holds what a way leads to: the references of application code on it, else what the JDK says."""
        parts = list[str]()
        thread = labels.thread_name(way[0])
        applications = [step for step in steps if step.is_application]
        # A static of a class that many loaders have loaded holds nothing by itself: who holds the loaders does.
        several = [step for step in applications if step.kind == STATIC and step.name in self._several]
        if several and several[0] != applications[0]:
            applications = applications[: applications.index(several[0])]
        for step in steps:
            if step.thread_local:
                parts.append(_local_of(step, thread))
            elif step.kind == LOCAL:
                where = f" in {step.label}" if step.label else ""
                parts.append(f"local of thread {thread or '(unnamed)'}{where}")
            elif step in applications[-3:]:
                parts.append(_short(step))
        if parts:
            return " \N{RIGHTWARDS ARROW} ".join(parts)
        named = [step for step in steps if step.is_named]
        if thread:
            tail = f" \N{RIGHTWARDS ARROW} {_short(named[-1])}" if named else ""
            return f"thread {thread}{tail}"
        if named:
            ends = [_short(step) for step in dict.fromkeys([named[0], named[-1]])]
            return " \N{RIGHTWARDS ARROW} ".join(ends)
        name = labels.class_object(way[0])
        return f"class {name}" if name else f"a {self._graph.opened.class_name(way[0])}"

    def _suspect(
        self, group: list[tuple[Gathering, list[Hop], Counter[str]]], labels: Labels, total: int
    ) -> Suspect:
        graph = self._graph
        place, steps, _ = max(group, key=lambda each: each[0].size_bytes)
        size_bytes = sum(each.size_bytes for each, _, _ in group)
        owners = Counter[str]()
        for _, _, counted in group:
            owners.update(counted)
        (holder, often), *others = owners.most_common(6)
        also = tuple(
            name
            for name, times in others
            if times * 4 >= often and _DIGITS.sub("N", name) != _DIGITS.sub("N", holder)
        )
        target = way[-1] if (way := self._way_of(place, steps)) else place.each
        root, thread, frame = self._root(way, steps, labels)
        contents = self._contents(group)
        shared = bool(also) or (place.pieces > 0 and place.each < 0)
        what = (
            f"{place.pieces:,} objects of {place.piece_class}"
            if place.pieces
            else _article(graph, target, labels)
        )
        summary = f"{holder} holds {100 * size_bytes / total:.0f}% of the heap"
        summary += f", in {what}" if len(group) == 1 else f", in {len(group)} places, most in {what}"
        return Suspect(
            holder=holder, retained_bytes=size_bytes, share=round(size_bytes / total, 4), places=len(group), shared=shared,
            summary=summary, object_class=labels.class_object(target) or graph.opened.class_name(target),
            object_id=hex(graph.opened.index.id_of(target)), root=root, thread=thread, frame=frame,
            path=tuple(self._path(steps)), also_held_by=also, other_holders=tuple(self._other_holders(way, labels)),
            contents=contents,
        )  # fmt: skip

    def _way_of(self, place: Gathering, steps: list[Hop]) -> list[int]:
        if steps:
            return [steps[0].holder, *(step.target for step in steps)]
        return list(place.ways[0]) if place.ways else []

    def _root(self, way: list[int], steps: list[Hop], labels: Labels) -> tuple[str, str | None, str | None]:
        """Say at what the way begins, of which thread, in which frame."""
        opened = self._graph.opened
        if not way:
            return "several roots", None, None
        frame = next((step.label for step in steps if step.kind == LOCAL and step.label), None)
        name = labels.class_object(way[0])
        if name is not None:
            return f"class {name}", None, frame
        thread = labels.thread_name(way[0])
        if thread is not None or self._threads[opened.class_of(way[0])]:
            return f"thread {thread or '(unnamed)'}", thread, frame
        kind = _ROOTS.get(opened.root_kinds.get(way[0], 0), "root")
        return f"{kind}: a {opened.class_name(way[0])}", None, frame

    def _path(self, steps: list[Hop]) -> list[PathStep]:
        found = list[PathStep]()
        for step in steps:
            target = self._graph.opened.class_name(step.target)
            text = _short(step) if step.kind != LOCAL else f"local in {step.label or 'an unknown frame'}"
            text += f" (of {_kind_of_local(step)} {step.thread_local})" if step.thread_local else ""
            found.append(
                PathStep(
                    step.name, step.kind, step.label, target, hex(self._graph.opened.index.id_of(step.target)),
                    self._graph.kept_by(step.target), text,
                )
            )  # fmt: skip
        return found

    def _other_holders(self, way: list[int], labels: Labels) -> list[HolderRow]:
        """Give who else refers to what is on the way, from its end on."""
        found, graph = list[HolderRow](), self._graph
        for before, each in list(pairwise(way))[::-1]:
            others = [other for other in graph.referrers_of(each) if other != before and graph.number[other]]
            for other in others[: _REFERRERS_MOST - 1]:
                step = labels.step(other, each)
                if step.label != "<class>" and graph.kept_by(other) < graph.kept_by(each):
                    found.append(HolderRow(graph.opened.class_name(each), step.name, step.label, len(others)))
        return found[:8]

    def _contents(self, group: list[tuple[Gathering, list[Hop], Counter[str]]]) -> tuple[Content, ...]:
        graph, classes = self._graph, self._graph.opened.classes
        counts, sizes = np.zeros(classes.count, np.int64), np.zeros(classes.count, np.int64)
        for place, _, _ in group:
            if place.each >= 0 and not place.pieces:
                add_classes_below(graph.retained, place.found.number, counts, sizes)
            for piece in place.small.tolist():
                add_classes_below(graph.retained, piece, counts, sizes)
        order = np.argsort(-sizes, kind="stable")
        order = order[counts[order] > 0]
        rows = order[:_CONTENTS].tolist()
        names = classes.names
        rows += [
            each for each in order[_CONTENTS:].tolist() if not is_jdk(names[each]) and "[" not in names[each]
        ][:2]
        return tuple(Content(names[each], int(counts[each]), int(sizes[each])) for each in rows)


def _kind_of_local(step: Hop) -> str:
    return "ClassValue" if step.name == CLASS_VALUE_ENTRY else "ThreadLocal"


def _local_of(step: Hop, thread: str | None) -> str:
    return f"{_kind_of_local(step)} {step.thread_local}" + (f" of thread {thread}" if thread else "")


_ROOTS = {
    0x01: "JNI global", 0x02: "JNI local", 0x03: "Java frame", 0x04: "native stack", 0x05: "system class",
    0x06: "thread block", 0x07: "monitor in use", 0x08: "thread", 0xFF: "unknown root", OF_A_CLASS: "values of a class",
}  # fmt: skip


def names_of_several_loaders(opened: Opened) -> frozenset[str]:
    """Give the names that classes of several loaders have."""
    loaders: dict[str, set[int]] = {}
    for number in np.flatnonzero(opened.classes.ids != 0).tolist():
        loaders.setdefault(opened.classes.names[number], set()).add(int(opened.classes.heads[number, 2]))
    return frozenset(name for name, found in loaders.items() if len(found) >= _SEVERAL)


def _short(step: Hop) -> str:
    return f"{step.name}{step.label}" if step.kind == ELEMENT else f"{step.declared_by}.{step.label}"


def _article(graph: HeapGraph, target: int, labels: Labels) -> str:
    name = labels.class_object(target)
    if name is not None:
        return f"class {name}"
    elements = int(graph.opened.edges.elements_of[target])
    name = graph.opened.class_name(target)
    return f"one {name} of {elements:,} elements" if name.endswith("[]") else f"one {name}"
