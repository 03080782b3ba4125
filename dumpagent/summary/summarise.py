"""Makes the report on a dump within a budget of CPU seconds: a survey, then a climb from samples to their holders."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import accumulate

from dumpagent.hprof.facts import class_ids, each_record, java_name, oom_stack, text_of
from dumpagent.hprof.heap_scan import DamagedHeap
from dumpagent.hprof.histogram import Names, histogram_of
from dumpagent.hprof.layout import java_major
from dumpagent.hprof.records import (
    CLASS_DUMP,
    INSTANCE,
    LOAD_CLASS,
    OBJECT_ARRAY,
    PRIMITIVE_ARRAY,
    PRIMITIVES,
    STRING,
)
from dumpagent.hprof.source import ByteSource, ReadAhead
from dumpagent.hprof.thread import thread_name
from dumpagent.hprof.walk import Shape, Walk
from dumpagent.summary.climb import Climber
from dumpagent.summary.references import HeapReference, HeldBy, Known
from dumpagent.summary.report import Collection, Holder, LoadedOften, Report, share_of
from dumpagent.summary.survey import Survey
from dumpagent.summary.ways import Way, inferred

_SAMPLES = 16
_SURVEY_PART = 0.6  # of the budget, at most
_CLASSES, _FRAMES, _COLLECTIONS, _OFTEN = 10, 8, 5, 5
_WINDOW_BYTES = 1 << 20
_LOADERS_LEAST = 10
_NAMES_MOST = 200_000
_JDK = ("java.", "javax.", "jdk.", "sun.", "com.sun.", "kotlin.", "scala.")
_WEAK = ("java.lang.ref.WeakReference", "java.lang.ref.PhantomReference")
_ENTRY = "java.lang.ThreadLocal$ThreadLocalMap$Entry"
_BACKWARDS = (
    b"prev",
    b"previous",
    b"parent",
    b"this$0",
    b"this$1",
    b"before",
    b"owner",
    b"pred",
    b"left",
    b"right",
    b"outerThis",
    b"discovered",
)
_REFERENT = b"referent"


class _Enough(Exception):
    """The survey has cost what it may cost."""


def summarise(
    source: ByteSource,
    *,
    size_bytes: int | None,
    packed: bool = False,
    part_read: Callable[[], float] | None = None,
    budget_s: float = 120.0,
    cpu_s: Callable[[], float],
    seed: int = 1,
) -> Report | None:
    """Give the report on a dump, None if it has no heap. `cpu_s` is a clock of CPU seconds.

    `packed` says that going back in `source` is dear; its `size_bytes` is None then, and `part_read` says which part of
    the packed file was read (0 to 1). Never raises for a damaged dump: it tells what is there.
    Raises OSError.
    """
    began = cpu_s()
    walk = Walk()
    survey, damage, out_of_time = _survey(
        ReadAhead(source), walk, size_bytes, lambda: cpu_s() - began < budget_s * _SURVEY_PART
    )
    if survey is None or walk.header is None or walk.gathered is None:
        return None
    part = part_read() if part_read else survey.heap_bytes / max(1, size_bytes or 0)
    names = Names(source, walk.header.id_size, walk.ranges)
    histogram = histogram_of(survey, names, java_major(walk.gathered.jvm), _CLASSES, damage)
    told = _Told(source, walk, survey)

    def keep_on() -> bool:
        return cpu_s() - began < budget_s

    climber = Climber(source, survey, told.known(), keep_on=keep_on)
    samples = _samples(source, survey, random.Random(seed))  # noqa: S311 - draws samples
    large = survey.large_arrays[:_COLLECTIONS]
    climber.climb(
        [*samples, *((each.object_id, each.class_id, _piece_of(survey, each.offset)) for each in large)]
    )
    ways = [climber.way(each, class_id) for each, class_id, _ in samples]
    owner = told.owner(ways)
    thread = thread_name(source, walk, keep_on=lambda _bytes: keep_on(), backwards=not packed)
    stack = oom_stack(source, walk.header, walk.gathered, walk.ranges)
    return Report(
        complete=not damage and not out_of_time,
        damage=damage or None,
        surveyed_percent=min(100, round(100 * (part if out_of_time else 1.0))),
        out_of_time=out_of_time or not keep_on(),
        cpu_s=round(cpu_s() - began, 1),
        objects=histogram.objects,
        shallow_bytes=histogram.shallow_bytes,
        layout=histogram.layout,
        classes=histogram.classes,
        thread=thread,
        frames=tuple(each for each in stack if not each.startswith(_JDK))[:_FRAMES],
        owner=owner,
        collections=tuple(
            told.collection(each.class_id, each.elements, climber.path(each.object_id)) for each in large
        ),
        loaded_often=told.loaded_often(),
    )


def _survey(
    source: ByteSource, walk: Walk, size_bytes: int | None, keep_on: Callable[[], bool]
) -> tuple[Survey | None, str, bool]:
    """Give the survey of the last snapshot, what is damaged, and whether time ended it."""
    survey: Survey | None = None
    number = 0

    def progress(_bytes: int) -> None:
        if not keep_on():
            raise _Enough

    while True:
        walked = walk.advance(source, size_bytes=size_bytes, budget_bytes=1 << 62, each_heap_record=True)
        record = walk.heap_record
        if walked.shape is not Shape.UNFINISHED or record is None:
            return survey, "" if walked.shape is Shape.COMPLETE else walked.reason, False
        if survey is None or record.snapshot != number:
            number = record.snapshot
            assert walk.header is not None and walk.gathered is not None  # noqa: S101, PT018
            survey = Survey(
                source,
                walk.header.id_size,
                class_of_classes=walk.gathered.class_of_classes,
                no_fields=walk.gathered.no_fields,
            )
        try:
            survey.count(record.offset, record.length, progress=progress)
        except DamagedHeap as error:
            return survey, str(error), False
        except _Enough:
            return survey, "", True


def _piece_of(survey: Survey, offset: int) -> int:
    return max(0, bisect_right(survey.piece_starts, offset) - 1)


def _samples(source: ByteSource, survey: Survey, chance: random.Random) -> list[tuple[bytes, bytes, int]]:
    """Give objects drawn by their bytes, each with its class (none of a primitive array) and its piece."""
    ends = list(accumulate(survey.piece_lengths))
    if not ends:
        return []
    size, found = survey.id_size, []
    for number in range(_SAMPLES):
        drawn = int((number + chance.random()) * ends[-1] / _SAMPLES)
        piece = min(bisect_right(ends, drawn), len(ends) - 1)
        inside = drawn - (ends[piece] - survey.piece_lengths[piece])
        start = survey.piece_starts[piece]
        chunk = source.read_at(start, min(survey.piece_lengths[piece], _WINDOW_BYTES))
        last: tuple[bytes, bytes, int] | None = None
        for tag, begin, end in survey.records(chunk):
            own = chunk[begin + 1 : begin + 1 + size]
            if tag == INSTANCE:
                last = own, chunk[begin + size + 5 : begin + 2 * size + 5], piece
            elif tag == OBJECT_ARRAY:
                last = own, chunk[begin + size + 9 : begin + 2 * size + 9], piece
            elif tag == PRIMITIVE_ARRAY:
                last = own, bytes([chunk[begin + size + 9]]), piece
            elif tag == CLASS_DUMP:
                last = own, b"", piece
            if end > inside and last:
                break
        if last:
            found.append(last)
    return found


class _Told:
    """Turns identifiers into names, and ways up into an owner."""

    def __init__(self, source: ByteSource, walk: Walk, survey: Survey) -> None:
        assert walk.header is not None  # noqa: S101 - there was a heap
        self._source, self._ranges, self._size = source, walk.ranges, walk.header.id_size
        self._survey = survey
        self._classes: dict[bytes, str] = {}
        self._fields: dict[bytes, str] = {}

    def known(self) -> Known:
        """Give the identifiers of the classes and names that mean something."""
        special = class_ids(self._source, self._size, self._ranges, {*_WEAK, _ENTRY})
        texts: dict[bytes, bytes] = {}
        for tag, record in each_record(self._source, self._ranges):
            if tag == STRING and (record[self._size :] in _BACKWARDS or record[self._size :] == _REFERENT):
                texts[record[: self._size]] = record[self._size :]
        return Known(
            weak=frozenset(each for each, name in special.items() if name in _WEAK),
            thread_local_entry=next((each for each, name in special.items() if name == _ENTRY), None),
            referent=next((each for each, text in texts.items() if text == _REFERENT), None),
            backwards=frozenset(each for each, text in texts.items() if text != _REFERENT),
        )

    def _learn(self, paths: Sequence[Sequence[HeapReference]], classes: set[bytes]) -> None:
        """Look up the names of all classes and fields on these ways."""
        steps = [step for path in paths for step in path]
        met = {each for step in steps for each in (step.class_id, step.declared_by)} | classes
        wanted = {each for each in met if len(each) == self._size}
        wanted -= self._classes.keys()
        self._classes |= Names(self._source, self._size, self._ranges).of(wanted) if wanted else {}
        fields = {step.name for step in steps if step.name} - self._fields.keys()
        if fields:
            for tag, record in each_record(self._source, self._ranges):
                if tag == STRING and record[: self._size] in fields:
                    self._fields[record[: self._size]] = text_of(record[self._size :])

    def _class(self, class_id: bytes) -> str:
        if len(class_id) == 1:
            return f"{PRIMITIVES[class_id[0]][0]}[]" if class_id[0] in PRIMITIVES else "?"
        return self._classes.get(class_id, "java.lang.Class" if not class_id else "?")

    def label(self, step: HeapReference) -> str:
        """Give a step's name: class.field."""
        if step.kind is HeldBy.LOCAL:
            return f"a local variable of thread {step.serial}"
        if step.kind is HeldBy.THREAD:
            return f"thread {step.serial}"
        if step.kind is HeldBy.ELEMENT:
            return self._class(step.class_id)
        if not step.name:
            return f"a linked list of {self._class(step.class_id)}"
        beside = " (value of a ThreadLocal)" if step.beside else ""
        return f"{self._class(step.class_id)}.{self._fields.get(step.name, '?')}{beside}"

    def _is_own(self, step: HeapReference) -> bool:
        if step.kind is HeldBy.ELEMENT:
            return False
        if step.kind in (HeldBy.LOCAL, HeldBy.THREAD):
            return True
        return not self._class(step.declared_by or step.class_id).startswith(_JDK)

    def owner(self, ways: list[Way]) -> Holder | None:
        """Give what most of the ways up have in common: the lowest holder that most share, and the field above it.

        Ways that share no single holder may share the field of a class, of which there are many objects then.
        """
        self._learn([way.steps for way in ways], {way.of for way in ways if len(way.of) == self._size})
        for key in (lambda step: (step.holder, step.class_id, step.kind), lambda step: self.label(step)):
            groups: Counter[object] = Counter()
            for way in ways:
                groups.update({key(step) for step in way.steps})
            if not groups:
                return None
            most = max(groups.values())
            if most >= 3:
                shared = {each for each, many in groups.items() if many >= max(3, 0.8 * most)}
                return self._owner(ways, key, shared)
        return self._owner(ways, key, {max(groups, key=lambda each: groups[each])})

    def _owner(
        self, ways: list[Way], key: Callable[[HeapReference], object], shared: set[object]
    ) -> Holder | None:
        holders: list[str | None] = []  # of each way
        chains: dict[str, tuple[str, ...]] = {}
        objects: dict[str, Counter[str]] = {}
        for way in ways:
            first = next((number for number, step in enumerate(way.steps) if key(step) in shared), None)
            if first is None:
                holders.append(None)
                continue
            last = len(way.steps) - 1
            at = next((number for number in range(first, last) if self._is_own(way.steps[number])), last)
            name = self.label(way.steps[at])
            holders.append(name)
            chain = tuple(self.label(step) for step in reversed(way.steps[: at + 1]))
            chains[name] = max(chains.get(name, ()), chain, key=len)
            objects.setdefault(name, Counter())[self._class(way.of)] += 1
        if not chains:
            return None
        name, many = Counter(filter(None, holders)).most_common(1)[0]
        return Holder(
            name,
            share_of(
                many,
                len(ways),
                unknown=sum(way.is_open and not held for way, held in zip(ways, holders, strict=True)),
                inferred=inferred(ways, [each and each == name for each in holders]),
            ),
            chains[name],
            objects[name].most_common(1)[0][0],
        )

    def collection(self, class_id: bytes, elements: int, path: list[HeapReference]) -> Collection:
        """Give a large array with the first field of the application's own code above it, or the last one found."""
        self._learn([path], {class_id})
        fields = [step for step in path if step.kind is not HeldBy.ELEMENT]
        held_by = next((step for step in fields if self._is_own(step)), fields[-1] if fields else None)
        return Collection(self._class(class_id), elements, self.label(held_by) if held_by else None)

    def loaded_often(self) -> tuple[LoadedOften, ...]:
        """Give the classes that were loaded many times under one name: by as many class loaders."""
        times: Counter[bytes] = Counter()
        for tag, record in each_record(self._source, self._ranges):
            if tag == LOAD_CLASS and len(times) < _NAMES_MOST:
                times[record[8 + self._size : 8 + 2 * self._size]] += 1
        often = {each: many for each, many in times.most_common(_OFTEN) if many >= _LOADERS_LEAST}
        named = (
            {
                record[: self._size]: java_name(text_of(record[self._size :]))
                for tag, record in each_record(self._source, self._ranges)
                if tag == STRING and record[: self._size] in often
            }
            if often
            else {}
        )
        return tuple(LoadedOften(named.get(each, "?"), many) for each, many in often.items())
