"""The summary: an estimate with bounds, of any dump that has a heap, inside its budget; no text of the heap in it."""

from __future__ import annotations

import itertools
import json
import struct

import pytest

from dumpagent.hprof.source import InMemory
from dumpagent.summary.references import HeapReference, HeldBy
from dumpagent.summary.report import Report, Share, share_of
from dumpagent.summary.summarise import summarise
from dumpagent.summary.ways import Way, inferred
from tests.harness.hprof import END, SEGMENT, Maker, record

MAKE = Maker()
_OBJECT, _HOLDER, _ARRAY, _NODE = 0x2001, 0x2002, 0x2003, 0x2004
_KEPT, _NEXT, _BODY = 101, 102, 103
SECRET = b"password=hunter2"


def class_dump(
    number: int, *, statics: tuple[tuple[int, int], ...] = (), fields: tuple[int, ...] = ()
) -> bytes:
    ids = MAKE.id(number) + bytes(4) + (bytes(8) if number == _OBJECT else MAKE.id(_OBJECT)) + bytes(40)
    listed = struct.pack(">H", len(statics)) + b"".join(MAKE.id(n) + b"\2" + MAKE.id(v) for n, v in statics)
    listed += struct.pack(">H", len(fields)) + b"".join(MAKE.id(n) + b"\2" for n in fields)
    return b"\x20" + ids + bytes(4) + bytes(2) + listed


def instance(number: int, class_id: int, *references: int) -> bytes:
    values = b"".join(map(MAKE.id, references))
    return b"\x21" + MAKE.id(number) + bytes(4) + MAKE.id(class_id) + struct.pack(">I", len(values)) + values


def body(number: int, size_bytes: int = 200) -> bytes:
    content = SECRET + bytes(size_bytes - len(SECRET))
    return b"\x23" + MAKE.id(number) + bytes(4) + struct.pack(">IB", size_bytes, 8) + content


def head() -> bytes:
    texts = {
        _KEPT: "kept", _NEXT: "next", _BODY: "body",
        111: "java/lang/Object", 112: "com/acme/Holder", 113: "[Ljava/lang/Object;", 114: "com/acme/Node",
    }  # fmt: skip
    loaded = {_OBJECT: 111, _HOLDER: 112, _ARRAY: 113, _NODE: 114}
    return b"".join(
        [
            MAKE.head(),
            *(MAKE.string(number, text) for number, text in texts.items()),
            *(MAKE.load_class(10 + name, name, class_id=number) for number, name in loaded.items()),
        ]
    )


def array_leak(many: int = 2000) -> bytes:
    """Give a dump in which the static field com.acme.Holder.kept holds an array of nodes with a body each."""
    nodes = range(0x100000, 0x100000 + 0x200 * many, 0x200)
    elements = b"".join(MAKE.id(each) for each in nodes)
    heap = [
        class_dump(_OBJECT),
        class_dump(_HOLDER, statics=((_KEPT, 0x9000),)),
        class_dump(_ARRAY),
        class_dump(_NODE, fields=(_NEXT, _BODY)),
        b"\x22" + MAKE.id(0x9000) + bytes(4) + struct.pack(">I", many) + MAKE.id(_ARRAY) + elements,
        *(instance(each, _NODE, 0, each + 0x100) + body(each + 0x100) for each in nodes),
    ]
    return head() + record(SEGMENT, b"".join(heap)) + record(END)


def list_leak(many: int = 5000) -> bytes:
    """Give one in which it holds the first of many nodes that hold each other."""
    nodes = range(0x100000, 0x100000 + 0x200 * many, 0x200)
    heap = [
        class_dump(_OBJECT),
        class_dump(_HOLDER, statics=((_KEPT, nodes[0]),)),
        class_dump(_NODE, fields=(_NEXT, _BODY)),
        *(
            instance(each, _NODE, each + 0x200 if each != nodes[-1] else 0, each + 0x100) + body(each + 0x100)
            for each in nodes
        ),
    ]
    return head() + record(SEGMENT, b"".join(heap)) + record(END)


def report_of(content: bytes, *, budget_s: float = 100.0, step_s: float = 0.0) -> Report:
    """Give the report, by a clock that goes on by `step_s` each time it is asked."""
    ticks = itertools.count()
    found = summarise(
        InMemory(content), size_bytes=len(content), budget_s=budget_s, cpu_s=lambda: next(ticks) * step_s
    )
    assert found is not None
    return found


@pytest.mark.parametrize("content", [array_leak(), list_leak()], ids=["array", "linked list"])
def test_the_field_that_holds_most_of_the_memory_is_named(content: bytes) -> None:
    report = report_of(content)
    assert report.complete
    assert report.owner is not None
    assert report.owner.name == "com.acme.Holder.kept"
    assert report.owner.share.least >= 75
    assert report.owner.chain[0] == "com.acme.Holder.kept"
    assert report.owner.chain[-1].startswith("com.acme.Node.")
    assert report.classes[0].name == "byte[]"
    assert len(report.lines()) == 3
    assert report.lines()[0].startswith("held by: most likely com.acme.Holder.kept, about ")


def test_a_cut_dump_has_a_report_too() -> None:
    content = array_leak()
    report = report_of(content[: len(content) * 2 // 3])
    assert not report.complete
    assert report.owner is not None
    assert report.owner.name == "com.acme.Holder.kept"


def test_a_budget_that_ends_gives_what_there_is() -> None:
    heap = b"".join(record(SEGMENT, body(0x100000 + 0x1000 * number, 900_000)) for number in range(20))
    content = array_leak()[:-9] + heap + record(END)
    report = report_of(content, budget_s=10.0, step_s=1.0)
    assert report.out_of_time
    assert not report.complete
    assert 0 < report.surveyed_percent < 100
    assert report.objects > 0
    assert report.classes
    assert f"{report.surveyed_percent} % of the dump that were read" in report.lines()[0]
    nothing = report_of(content, budget_s=0.0, step_s=1.0)
    assert nothing.out_of_time
    assert nothing.classes


def test_no_text_of_the_heap_is_in_a_report() -> None:
    said = json.dumps(report_of(array_leak()).as_dict()) + "".join(report_of(array_leak()).lines())
    assert "hunter2" not in said
    assert json.loads(json.dumps(report_of(array_leak()).as_dict()))["version"] == 1


def test_words_of_an_estimate_are_not_those_of_a_measurement() -> None:
    assert "retained" not in "".join(report_of(array_leak()).lines())
    assert "most likely" in report_of(array_leak()).lines()[0]


def test_what_has_no_heap_has_no_report() -> None:
    for content in (b"", b"no dump", MAKE.head()):
        assert summarise(InMemory(content), size_bytes=len(content), cpu_s=lambda: 0.0) is None


@pytest.mark.parametrize(
    ("some", "of", "share"),
    [
        (16, 16, Share(100, 80, 100)),
        (8, 16, Share(50, 27, 73)),
        (0, 16, Share(0, 0, 20)),
        (0, 0, Share(0, 0, 100)),
    ],
)
def test_a_share_has_the_bounds_that_its_samples_allow(some: int, of: int, share: Share) -> None:
    assert share_of(some, of) == share


def test_samples_whose_holder_was_not_found_widen_the_bounds_and_are_told() -> None:
    """A quarter was seen to be held by it: it may be all."""
    share = share_of(4, 16, unknown=12)
    assert (share.percent, share.least, share.most, share.unknown) == (25, 10, 100, 75)


def step(kind: HeldBy, name: str) -> HeapReference:
    return HeapReference(kind, b"holder", name.encode())


def test_samples_that_could_not_be_followed_count_as_the_others_of_their_class() -> None:
    """A quarter of the samples was followed in a dump of 1.4 GB, all to one map, and "31 %" was told."""
    followed = Way(b"body", (step(HeldBy.FIELD, "Node"), step(HeldBy.STATIC, "Cache")), ended=False)
    cut = Way(b"body", (), ended=False)
    assert inferred([followed] * 4 + [cut] * 12, [True] * 4 + [None] * 12) == 12.0
    other = Way(b"char", (step(HeldBy.STATIC, "Other"),), ended=False)
    ways = [followed, followed, other, other, cut, Way(b"char", (), ended=False)]
    assert inferred(ways, [True, True, None, None, None, None]) == 1.0


def test_samples_that_nothing_holds_are_nobody_s() -> None:
    followed = Way(b"body", (step(HeldBy.STATIC, "Cache"),), ended=False)
    garbage = Way(b"body", (), ended=True)
    assert inferred([followed] * 8 + [garbage] * 8, [True] * 8 + [None] * 8) == 0.0
    assert share_of(8, 16, unknown=8).percent == 50
