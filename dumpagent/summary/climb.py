"""Climbs from objects to what holds them, by looking for their identifiers in the bytes of the heap.

A reference is eight bytes that stand in the holder's record: they are found at the speed of memory, and only the record
around them is read. A million nodes that hold each other are stepped over at once: what is looked for then is a
reference from outside.
"""

from __future__ import annotations

import bisect
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from dumpagent.hprof.records import CLASS_DUMP, INSTANCE, OBJECT_ARRAY, OBJECT_TYPE, ROOT_THREAD
from dumpagent.hprof.source import ByteSource
from dumpagent.summary.references import HeapReference, HeldBy, Known, hits_of
from dumpagent.summary.survey import FRAME_ROOTS, Survey
from dumpagent.summary.ways import Way

_WINDOW_BYTES = 1 << 20
_DEEPEST_INHERITANCE = 100
_STEPS_MOST = 24
_ALIKE_MOST = 3  # so many steps from a class to itself by one field are a linked list
_KIN_MOST = 6  # so many by any of its fields are a tree, a skip list
_NEAR_PIECES, _LARGE_SEARCHED = 3, 24
# Ranks of holders; see _rank.
_GOOD, _BACKWARDS, _NO_HOLDER = 2, 5, 6
# How much is searched beyond what lies nearby, at a second of CPU for each GB, and how often a large heap is at least.
_SEARCHED_MOST_BYTES, _SEARCHES_LEAST = 6 << 30, 8
_ROUND_PART = 3  # what lies high above many samples is worth more than what lies right above one


class Climber:
    """Finds the holders of objects in what `survey` has passed. `keep_on` says whether there is still time."""

    def __init__(
        self, source: ByteSource, survey: Survey, known: Known, *, keep_on: Callable[[], bool]
    ) -> None:
        self._source, self._survey, self._known, self._keep_on = source, survey, known, keep_on
        self._size = survey.id_size
        self._bytes_left = max(_SEARCHED_MOST_BYTES, _SEARCHES_LEAST * survey.heap_bytes)
        self._searched: set[bytes] = set()
        self._references: dict[bytes, dict[int, tuple[bytes, bytes]]] = {}
        self._likely = self._likely_holders()
        self.steps: dict[bytes, HeapReference | None] = {}

    def climb(self, objects: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Find the way up from each object, given with its class and the piece in which it lies; see `path`."""
        open_ = {each: (class_id, piece) for each, class_id, piece in objects}
        linked: dict[bytes, HeapReference] = {}
        for _ in range(_STEPS_MOST):
            wanted = {each: at for each, at in open_.items() if each not in self.steps}
            if not wanted or not self._keep_on():
                return
            self._find(wanted)
            open_ = {}
            for each in wanted:
                step = self.steps.get(each)
                if step is None or step.kind not in (HeldBy.FIELD, HeldBy.ELEMENT):
                    continue
                if self._is_linked(each):
                    alike = step.class_id
                    step = linked.get(alike) or self._outside(alike, step.piece)
                    linked[alike] = step
                    self.steps[each] = step
                    if step.kind not in (HeldBy.FIELD, HeldBy.ELEMENT) or (step.linked and not step.holder):
                        continue
                target = step.beside or step.holder
                open_[target] = (step.class_id, step.piece)

    def path(self, object_id: bytes) -> list[HeapReference]:
        """Give the steps up from an object, as far as they were found."""
        found: list[HeapReference] = []
        seen = {object_id}
        while (step := self.steps.get(object_id)) and len(found) < _STEPS_MOST:
            found.append(step)
            object_id = step.beside or step.holder
            if object_id in seen or step.kind not in (HeldBy.FIELD, HeldBy.ELEMENT):
                break
            seen.add(object_id)
        return found

    def way(self, object_id: bytes, class_id: bytes) -> Way:
        """Give the way up from an object of this class."""
        steps = self.path(object_id)
        last = (steps[-1].beside or steps[-1].holder) if steps else object_id
        ended = last in self._searched and self.steps.get(last) is None and self._survey.complete
        return Way(class_id, tuple(steps), ended)

    # -- one level up -------------------------------------------------------------------------------------------

    def _find(self, wanted: dict[bytes, tuple[bytes, int]]) -> None:
        """Find a holder of each, the best one that is met before the search may end."""
        best: dict[bytes, tuple[int, HeapReference]] = {}
        for each, (class_id, piece) in wanted.items():
            if likely := self._likely.get(each):
                rank = self._rank(likely, class_id)
                if rank < _NO_HOLDER:
                    best[each] = rank, replace(likely, piece=piece)
        left = set(wanted) - {each for each, (rank, _) in best.items() if rank <= _GOOD}
        nearby = self._nearby({each: wanted[each][1] for each in left})
        for number in sorted(nearby):
            self._search([number], wanted, nearby[number] & left, best, _GOOD)
            left = {each for each in left if each not in best or best[each][0] > _GOOD}
        # The rest of the heap is searched for what has no holder yet, or but a local variable, and for few: it costs most
        # of the time.
        left = {each for each in wanted if each not in best or best[each][1].kind is HeldBy.LOCAL}
        affordable = max(1, self._bytes_left // max(1, self._survey.heap_bytes * _ROUND_PART))
        if self._bytes_left < self._survey.heap_bytes:
            affordable = 0
        left = set(sorted(left, key=lambda each: (each not in best, each))[:affordable])
        self._bytes_left -= len(left) * self._survey.heap_bytes
        everywhere = range(len(self._survey.piece_starts))
        for some, enough in (
            ({each for each in left if each in best}, _GOOD),
            ({each for each in left if each not in best}, _BACKWARDS - 1),
        ):
            if self._search(everywhere, wanted, some, best, enough):
                self._searched |= some
        for each in wanted:
            self.steps[each] = best[each][1] if each in best else None

    def _search(
        self,
        pieces: Iterable[int],
        wanted: dict[bytes, tuple[bytes, int]],
        left: set[bytes],
        best: dict[bytes, tuple[int, HeapReference]],
        enough: int,
    ) -> bool:
        """Look through `pieces` for holders of what is `left`, until each has one of a rank that is good enough.

        Say whether nothing is left to look through.
        """
        for number in pieces:
            if not left:
                break
            if not self._keep_on():
                return False
            for target, step in self._holders_in(number, left):
                rank = self._rank(step, wanted[target][0])
                if rank < _NO_HOLDER and (target not in best or rank < best[target][0]):
                    best[target] = rank, step
            left = {each for each in left if each not in best or best[each][0] > enough}
        return True

    def _nearby(self, places: dict[bytes, int]) -> dict[int, set[bytes]]:
        """Give the pieces in which a holder is likely: around each object, and for all those with large arrays."""
        count, starts = len(self._survey.piece_starts), self._survey.piece_starts
        found: dict[int, set[bytes]] = {}
        for each, at in places.items():
            for number in range(max(0, at - _NEAR_PIECES), min(count, at + _NEAR_PIECES + 1)):
                found.setdefault(number, set()).add(each)
        for array_ in self._survey.large_arrays[:_LARGE_SEARCHED]:
            number = max(0, bisect.bisect_right(starts, array_.offset) - 1)
            found.setdefault(number, set()).update(places)
        return found

    def _rank(self, step: HeapReference, class_id: bytes) -> int:
        """Say how likely a holder is the one that matters: 0 is best, _NO_HOLDER is none at all."""
        if step.kind in (HeldBy.STATIC, HeldBy.THREAD):
            return 0
        if step.kind is HeldBy.LOCAL:
            return 3  # often the very call that adds to what another object holds
        if step.kind is HeldBy.ELEMENT:
            return 1
        if step.name == self._known.referent and self._is_weak(step.class_id):
            return _NO_HOLDER
        if step.name in self._known.backwards:
            return _BACKWARDS
        return 4 if step.class_id == class_id else _GOOD

    def _is_weak(self, class_id: bytes) -> bool:
        return any(each in self._known.weak for each in self._lineage(class_id))

    def _lineage(self, class_id: bytes) -> Iterator[bytes]:
        for _ in range(_DEEPEST_INHERITANCE):
            declared = self._survey.declared(class_id)
            if declared is None:
                return
            yield class_id
            class_id = declared.parent

    def _is_linked(self, object_id: bytes) -> bool:
        """Say whether the way up from an object leads from a class to itself again and again."""
        step = self.steps.get(object_id)
        if step is None or step.kind is not HeldBy.FIELD:
            return False
        alike, kin, one_field = 0, 0, True
        for below in self._below(object_id):
            if below.class_id != step.class_id or kin >= _KIN_MOST:
                break
            kin += 1
            one_field = one_field and below.name == step.name
            alike += one_field
        return alike >= _ALIKE_MOST or kin >= _KIN_MOST

    def _below(self, object_id: bytes) -> Iterator[HeapReference]:
        """Give the steps that lead up to an object, the nearest first."""
        for _ in range(_STEPS_MOST):
            for child, step in self.steps.items():
                if step and (step.beside or step.holder) == object_id:
                    yield step
                    object_id = child
                    break
            else:
                return

    # -- in the bytes -------------------------------------------------------------------------------------------

    def _holders_in(self, number: int, targets: set[bytes]) -> Iterator[tuple[bytes, HeapReference]]:
        start, length = self._survey.piece_starts[number], self._survey.piece_lengths[number]
        chunk = self._source.read_at(start, min(length, _WINDOW_BYTES))
        hits = hits_of(chunk, targets)
        last: tuple[int, int, int] | None = None
        if hits or length > len(chunk):
            at = 0
            for tag, begin, end in self._survey.records(chunk):
                last = tag, begin, end
                while at < len(hits) and hits[at][0] < begin:
                    at += 1
                while at < len(hits) and hits[at][0] < end:
                    step = self._step(chunk, tag, begin, hits[at], number)
                    at += 1
                    if step:
                        yield hits[at - 1][1], step
                if at >= len(hits) and length <= len(chunk):
                    break
        if last and last[0] == OBJECT_ARRAY and length > len(chunk):
            yield from self._in_long_array(start, length, chunk, last[1], targets, number)

    def _in_long_array(
        self, start: int, length: int, chunk: bytes, begin: int, targets: set[bytes], number: int
    ) -> Iterator[tuple[bytes, HeapReference]]:
        """Search the part of an array that lies behind `chunk`; the array's record begins at `begin` of it."""
        size = self._size
        first = begin + 2 * size + 9
        step = HeapReference(
            HeldBy.ELEMENT,
            chunk[begin + 1 : begin + 1 + size],
            chunk[begin + size + 9 : begin + 2 * size + 9],
            piece=number,
        )
        at = len(chunk) - (len(chunk) - first) % size
        while at < length and self._keep_on():
            window = self._source.read_at(start + at, min(length - at, _WINDOW_BYTES // size * size))
            if not window:
                return
            for position, target in hits_of(window, targets):
                if position % size == 0:
                    yield target, step
            at += len(window)

    def _step(
        self, chunk: bytes, tag: int, begin: int, hit: tuple[int, bytes], number: int
    ) -> HeapReference | None:
        """Say how the record at `begin` holds what stands at the hit; None if it only looks so."""
        position, target = hit
        size = self._size
        own = chunk[begin + 1 : begin + 1 + size]
        values = begin + 2 * size + 9
        if tag == INSTANCE:
            class_id = chunk[begin + size + 5 : begin + 2 * size + 5]
            name, declared_by = self.references_of(class_id).get(position - values, (b"", b""))
            if not name:
                return None
            beside = self._beside(class_id, name, chunk[values : values + 400])
            return HeapReference(
                HeldBy.FIELD, own, class_id, name, 0, beside, number, declared_by=declared_by
            )
        if tag == OBJECT_ARRAY:
            if position < values or (position - values) % size:
                return None
            return HeapReference(HeldBy.ELEMENT, own, chunk[begin + size + 9 : values], piece=number)
        if tag == CLASS_DUMP:
            declared = self._survey.declared(own)
            for name, reference in declared.statics if declared else ():
                if reference == target:
                    return HeapReference(HeldBy.STATIC, own, own, name)
            return None
        if position == begin + 1 and (tag in FRAME_ROOTS or tag == ROOT_THREAD):
            serial = int.from_bytes(chunk[begin + 1 + size : begin + 5 + size], "big")
            return HeapReference(HeldBy.THREAD if tag == ROOT_THREAD else HeldBy.LOCAL, own, serial=serial)
        return None

    def references_of(self, class_id: bytes) -> dict[int, tuple[bytes, bytes]]:
        """Give where in an object's values its references stand; of each the field's name and the class that has it."""
        known = self._references.get(class_id)
        if known is None:
            known, base = {}, 0
            for each in self._lineage(class_id):
                declared = self._survey.declared(each)
                if declared is None:
                    break
                width = 0
                for name, kind, at in declared.fields:
                    if kind == OBJECT_TYPE:
                        known[base + at] = name, each
                    width = at + self._survey.width(kind)
                base += width
            self._references[class_id] = known
        return known

    def _beside(self, class_id: bytes, name: bytes, values: bytes) -> bytes:
        """Give the ThreadLocal whose value an entry holds by the field `name`; none of any other object."""
        if class_id != self._known.thread_local_entry or name == self._known.referent:
            return b""
        for at, (each, _) in self.references_of(class_id).items():
            if each == self._known.referent:
                return values[at : at + self._size]
        return b""

    # -- from outside -------------------------------------------------------------------------------------------

    def _likely_holders(self) -> dict[bytes, HeapReference]:
        """Give what is held by statics, by stacks, and by the first object of each class."""
        size = self._size
        found: dict[bytes, HeapReference] = {}
        for class_id, record in self._survey.first_objects.items():
            own, values = record[1 : 1 + size], record[2 * size + 9 :]
            for at, (name, declared_by) in self.references_of(class_id).items():
                reference = values[at : at + size]
                if any(reference):
                    beside = self._beside(class_id, name, values)
                    step = HeapReference(
                        HeldBy.FIELD, own, class_id, name, 0, beside, declared_by=declared_by
                    )
                    if reference not in found or self._rank(step, b"") < self._rank(found[reference], b""):
                        found[reference] = step
        for object_id, serial in self._survey.locals.items():
            found.setdefault(object_id, HeapReference(HeldBy.LOCAL, object_id, serial=serial))
        for object_id, serial in self._survey.threads.items():
            found[object_id] = HeapReference(HeldBy.THREAD, object_id, serial=serial)
        for class_id, name, reference in self._survey.static_references():
            if any(reference):
                found[reference] = HeapReference(HeldBy.STATIC, class_id, class_id, name)
        return found

    def _outside(self, class_id: bytes, near: int) -> HeapReference:
        """Give what holds some object of a class whose objects hold each other; a step without holder if nothing was found.

        Known holders are asked first: statics, stacks, the first objects of other classes; then what statics and stacks hold.
        """
        outside = {
            each: step
            for each, step in self._likely.items()
            if step.class_id != class_id or step.kind is HeldBy.STATIC
        }
        found = self._holder_of_some(class_id, outside)
        if found is None:
            more = {each: step for each, step in self._held_by_held.items() if step.class_id != class_id}
            found = self._holder_of_some(class_id, more)
        return found or HeapReference(HeldBy.FIELD, b"", class_id, piece=near, linked=True)

    def _holder_of_some(self, class_id: bytes, holders: dict[bytes, HeapReference]) -> HeapReference | None:
        """Give the holder, among these by what they hold, of the first object of a class that has one."""
        size = self._size
        for number, chunk in self._chunks():
            at = chunk.find(class_id)
            while at >= 0:
                record = at - size - 5
                if record >= 0 and chunk[record] == INSTANCE:
                    step = holders.get(chunk[record + 1 : record + 1 + size])
                    if step and self._rank(step, class_id) <= 3:
                        return replace(step, piece=number, linked=True)
                at = chunk.find(class_id, at + 1)
        return None

    @functools.cached_property
    def _held_by_held(self) -> dict[bytes, HeapReference]:
        """What the objects hold that statics and stacks hold, found by a look at every record."""
        held = {*self._survey.locals, *self._survey.threads}
        held |= {reference for _, _, reference in self._survey.static_references()}
        size, found = self._size, dict[bytes, HeapReference]()
        for number, chunk in self._chunks():
            for tag, begin, _ in self._survey.records(chunk):
                own = chunk[begin + 1 : begin + 1 + size]
                if tag != INSTANCE or own not in held:
                    continue
                class_id, values = chunk[begin + size + 5 : begin + 2 * size + 5], begin + 2 * size + 9
                for at, (name, declared_by) in self.references_of(class_id).items():
                    step = HeapReference(
                        HeldBy.FIELD, own, class_id, name, piece=number, declared_by=declared_by
                    )
                    found.setdefault(chunk[values + at : values + at + size], step)
        return found

    def _chunks(self) -> Iterator[tuple[int, bytes]]:
        """Give the pieces of the heap, of long ones the start, until there is no more time."""
        for number, start in enumerate(self._survey.piece_starts):
            if not self._keep_on():
                return
            yield (
                number,
                self._source.read_at(start, min(self._survey.piece_lengths[number], _WINDOW_BYTES)),
            )
