"""How large objects are in the JVM's heap, which the dump does not say: found out by the distances between them.

Source: JDK oopDesc, arrayOopDesc (headers); ClassFileParser::layout_fields (JDK 8 to 14) and FieldLayoutBuilder (15 and
later; fields without gaps); javaClasses.hpp, *_INJECTED_FIELDS (fields that no dump shows); @Contended in java.base.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from dumpagent.hprof.classes import FieldCounts

_ALIGNMENT_BYTES = 8  # unless -XX:ObjectAlignmentInBytes says more, up to 256
_ALIGNMENT_MOST_BYTES = 256
_PADDING_BYTES = 128  # -XX:ContendedPaddingWidth
_FAR_BYTES = 1 << 20
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')
_NO_GAPS_SINCE = 15
_HALF, _TENTH = 2, 10
_ENOUGH = 100  # objects
# Below this an address may be compressed to 32 bits with objects at multiples of 8.
_COMPRESSIBLE = 32 << 30


@dataclass(frozen=True, slots=True)
class Layout:
    """Bytes that the JVM spends on an object's header, an array's header, a reference, and to what it rounds."""

    header: int
    array_header: int
    reference: int
    name: str
    alignment: int = _ALIGNMENT_BYTES

    def rounded(self, size_bytes: int) -> int:
        """Give what an object of so many bytes takes up."""
        return -(-size_bytes // self.alignment) * self.alignment

    def array_bytes(self, elements: int, width: int) -> int:
        """Give the size of an array; a width of 0 is that of a reference."""
        return self.rounded(self.array_header + elements * (width or self.reference))


# Mark word 8 (32 bits: 4), class pointer 4 or 8, array length 4; JDK 24 and later can do with 8 in all.
_LAYOUTS = (
    Layout(12, 16, 4, "compressed references"),
    Layout(16, 24, 8, "full references"),
    Layout(12, 16, 8, "full references, compressed class pointers"),
    Layout(16, 20, 8, "full references and class pointers"),
    Layout(16, 24, 4, "compressed references, full class pointers"),
    Layout(16, 20, 4, "compressed references, full class pointers without gap"),
    Layout(8, 12, 4, "compact headers, compressed references"),
    Layout(8, 12, 8, "compact headers, full references"),
)
_LAYOUTS_32 = (Layout(8, 12, 4, "32-bit JVM"),)


class Sample(NamedTuple):
    """An object and where it lies; of an array how many elements of which width (0: references), else None."""

    address: int
    elements: int | None = None
    width: int = 0


def guess_layout(samples: Sequence[Sample], id_size: int) -> tuple[Layout, bool]:
    """Give the layout that explains the distances from arrays to what lies behind them; and whether it is certain.

    Collectors that dump in no order of addresses (ZGC, Shenandoah) need samples in plenty: only of some both an array
    and its neighbour are among them.
    """
    by_address = sorted(samples, key=lambda each: each.address)
    bits = 0
    for each in by_address:
        bits |= each.address
    enough = len(by_address) >= _ENOUGH
    alignment = (
        min(max(bits & -bits, _ALIGNMENT_BYTES), _ALIGNMENT_MOST_BYTES) if enough else _ALIGNMENT_BYTES
    )
    gaps = [
        (after.address - each.address, each.elements, each.width)
        for each, after in itertools.pairwise(by_address)
        if each.elements is not None and 0 < after.address - each.address < _FAR_BYTES
    ]
    choice = _LAYOUTS if id_size == 8 else _LAYOUTS_32
    candidates = [replace(each, name=_named(each.name, alignment), alignment=alignment) for each in choice]
    votes = {each: _fitting(each, gaps) for each in candidates}
    best = max(candidates, key=lambda each: votes[each])
    if gaps and (
        votes[best] * _HALF > len(gaps) or (votes[best] * _TENTH > len(gaps) and len(gaps) >= _ENOUGH)
    ):
        return best, True
    if id_size == 4:
        return candidates[0], True
    far = bits >= _COMPRESSIBLE * (alignment // _ALIGNMENT_BYTES)
    return candidates[2 if far else 0], False


def _fitting(layout: Layout, gaps: Sequence[tuple[int, int, int]]) -> int:
    """Give how many distances are an array's very size, less those that it does not fit into."""
    fits = 0
    for gap, elements, width in gaps:
        size_bytes = layout.array_bytes(elements, width)
        fits += 1 if size_bytes == gap else -1 if size_bytes > gap else 0
    return fits


def _named(name: str, alignment: int) -> str:
    return name if alignment == _ALIGNMENT_BYTES else f"{name}, aligned to {alignment} bytes"


def java_major(jvm: str | None) -> int | None:
    """Give the Java version of `openjdk version "17.0.9" ...`; 8 of "1.8.0_292"."""
    found = _VERSION.search(jvm or "")
    return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class _Hidden:
    """Fields that HotSpot adds to a class in Java `since` to `until`. `words` are as wide as a pointer."""

    name: str
    references: int = 0
    words: int = 0
    eights: int = 0
    fours: int = 0
    twos: int = 0
    ones: int = 0
    since: int = 0
    until: int = 999


_HIDDEN = (
    _Hidden("java.lang.Class", references=3, words=2, fours=2, until=17),
    _Hidden("java.lang.Class", references=4, words=2, fours=2, since=18, until=24),
    _Hidden("java.lang.Class", references=2, words=2, fours=2, since=25),
    _Hidden("java.lang.ClassLoader", words=1),
    _Hidden("java.lang.InternalError", ones=1, since=17),
    _Hidden("java.lang.Module", words=1),
    _Hidden("java.lang.StackFrameInfo", twos=1),
    _Hidden("java.lang.String", ones=1, since=16),
    _Hidden("java.lang.Thread", words=1, fours=1, twos=1, ones=1, since=21),
    _Hidden("java.lang.invoke.CallSite", words=1, eights=1, since=25),
    _Hidden("java.lang.invoke.MemberName", references=1, words=2, until=8),
    _Hidden("java.lang.invoke.MemberName", words=1, since=9),
    _Hidden("java.lang.invoke.MethodHandleNatives$CallSiteContext", words=1, until=12),
    _Hidden("java.lang.invoke.MethodHandleNatives$CallSiteContext", words=1, eights=1, since=13),
    _Hidden("java.lang.invoke.ResolvedMethodName", words=1, since=22),
    _Hidden("java.lang.invoke.ResolvedMethodName", references=1, words=1, until=21),
)


@dataclass(frozen=True, slots=True)
class _Contended:
    """Fields that stand apart, with 128 bytes before, between and behind: `group` of the class's own, or all."""

    name: str
    group: FieldCounts | None = None
    since: int = 8
    until: int = 999


_CONTENDED = (
    _Contended("java.lang.Thread", FieldCounts(eights=1, fours=2), until=20),
    _Contended("java.util.concurrent.ConcurrentHashMap$CounterCell"),
    _Contended("java.util.concurrent.Exchanger$Node"),
    _Contended("java.util.concurrent.atomic.Striped64$Cell"),
)
# Classes whose references come first, and whose gaps are left, before Java 15.
_FIXED = frozenset(
    f"java.lang.{name}"
    for name in (
        *("AssertionStatusDirectives", "Class", "ClassLoader", "StackTraceElement", "String", "Throwable"),
        *("Boolean", "Character", "Float", "Double", "Byte", "Short", "Integer", "Long"),
        *("ref.Reference", "ref.SoftReference"),
    )
)
PECULIAR = _FIXED | {each.name for each in (*_HIDDEN, *_CONTENDED)}  # their names matter


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of instances in a JVM of this layout and Java version. `id_size` is also how wide its pointers are."""

    layout: Layout
    id_size: int
    java: int | None

    def instance_bytes(self, lineage: Sequence[tuple[str | None, FieldCounts]]) -> int:
        """Give the size of an object; `lineage` has its class first, each with its name if that is PECULIAR."""
        end = self.layout.header
        for name, own in reversed(lineage):
            end = self._fields_end(end, name, own)
        return self.layout.rounded(end)

    def mirror_bytes(self, class_bytes: int, statics: FieldCounts) -> int:
        """Give the size of a class's own object, which holds its static fields behind the `class_bytes` of any."""
        end = self.layout.rounded(class_bytes) + statics.references * self.layout.reference
        end = -(-end // 8) * 8 if statics.eights else end
        return self.layout.rounded(end + statics.bytes_with(0))

    def class_bytes(self, lineage: Sequence[tuple[str | None, FieldCounts]]) -> int:
        """Give what java.lang.Class and its superclasses take, not rounded to the layout's alignment."""
        end = self.layout.header
        for name, own in reversed(lineage):
            end = self._fields_end(end, name, own)
        return end

    @property
    def _has_gaps(self) -> bool:
        return self.java is not None and self.java < _NO_GAPS_SINCE

    def _fields_end(self, start: int, name: str | None, own: FieldCounts) -> int:
        group: FieldCounts | None = None
        if name:
            java = self.java or 17
            for hidden in _HIDDEN:
                if hidden.name == name and hidden.since <= java <= hidden.until:
                    words = (hidden.words, 0) if self.id_size == 8 else (0, hidden.words)
                    own = own.plus(
                        FieldCounts(
                            hidden.references,
                            hidden.eights + words[0],
                            hidden.fours + words[1],
                            hidden.twos,
                            hidden.ones,
                        )
                    )
            for contended in _CONTENDED:
                if contended.name == name and contended.since <= java <= contended.until:
                    group = contended.group or own
        if group:
            own = FieldCounts(*(max(0, all_ - some) for all_, some in zip(own, group, strict=True)))
            end = self._packed_end(start, own, name) + _PADDING_BYTES
            return self._packed_end(-(-end // 8) * 8 if group.eights else end, group, None) + _PADDING_BYTES
        return self._packed_end(start, own, name)

    def _packed_end(self, start: int, own: FieldCounts, name: str | None) -> int:
        """Give where the fields of one class end that may begin at `start`."""
        reference = self.layout.reference
        if not self._has_gaps:
            return start + own.bytes_with(reference)
        start = -(-start // reference) * reference
        references, eights, fours, twos, ones = own
        first = start
        if name in _FIXED:
            first, references = start + references * reference, 0
        at = -(-first // 8) * 8 if eights else first
        gap = at - first
        if gap and name not in _FIXED:
            filled = min(fours, gap // 4)
            fours, gap = fours - filled, gap - 4 * filled
            filled = min(twos, gap // 2)
            twos, gap = twos - filled, gap - 2 * filled
            filled = min(ones, gap)
            ones, gap = ones - filled, gap - filled
            if gap >= reference and references:
                references -= 1
        at += 8 * eights + 4 * fours + 2 * twos + ones
        if references:
            at = -(-at // reference) * reference + references * reference
        return -(-at // reference) * reference
