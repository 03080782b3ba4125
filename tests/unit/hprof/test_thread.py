"""The thread that ran out of memory has a name, wherever in the heap its pieces lie; what is not there is not known."""

from __future__ import annotations

import itertools

import pytest

from dumpagent.hprof.look import Look
from dumpagent.hprof.source import InMemory
from tests.harness.hprof import Maker, members
from tests.harness.threads import NamedThread

LATIN1, UTF16, CHARS = 0, 1, None
CHUNK = 512 << 10  # what is read at once
PLAIN = NamedThread(Maker(), b"http-8080-exec-1")


class CountedReads(InMemory):
    """Counts what is read."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.read_bytes = 0

    def read_at(self, offset: int, size_bytes: int) -> bytes:
        content = super().read_at(offset, size_bytes)
        self.read_bytes += len(content)
        return content


def name_in(content: bytes) -> str | None:
    look = Look(InMemory(content))
    look.advance(len(content), budget_bytes=None)
    return look.oom_thread()


@pytest.mark.parametrize("id_size", [4, 8])
@pytest.mark.parametrize("subclass", [True, False])
@pytest.mark.parametrize(
    ("coder", "value", "name"),
    [
        (LATIN1, b"http-8080-exec-1", "http-8080-exec-1"),
        (LATIN1, "zähler".encode("latin-1"), "zähler"),
        (UTF16, "заказ-7".encode("utf-16-le"), "заказ-7"),
        (UTF16, "заказ-7".encode("utf-16-be"), "заказ-7"),
        (UTF16, "注文".encode("utf-16-le"), "注文"),
        (CHARS, "заказ-7".encode("utf-16-be"), "заказ-7"),
    ],
)
def test_a_name_in_any_form_that_jvms_have(
    id_size: int, subclass: bool, coder: int | None, value: bytes, name: str
) -> None:
    dump = NamedThread(Maker(id_size=id_size), value, coder, subclass).dump()
    assert name_in(dump) == name
    assert name_in(members(dump, 300)) == name


def test_a_name_wherever_its_pieces_lie() -> None:
    pieces = [PLAIN.root(), PLAIN.thread(), PLAIN.name(), PLAIN.array()]
    for order in itertools.permutations(pieces):
        dump = PLAIN.dump(PLAIN.classes(), *order)
        assert name_in(dump) == "http-8080-exec-1"
        assert name_in(members(dump, 1000)) == "http-8080-exec-1"


def filler(size_bytes: int) -> bytes:
    """Give an array of `size_bytes` bytes."""
    return b"\x23" + Maker().id(1) + bytes(4) + size_bytes.to_bytes(4, "big") + b"\x08" + bytes(size_bytes)


@pytest.mark.parametrize("cut", [*range(0, 40, 3), 100])
def test_a_name_whose_pieces_lie_across_the_ends_of_what_is_read_at_once(cut: int) -> None:
    """Each piece is searched from where the last one was found; it begins `cut` bytes before a chunk's end."""
    around = len(filler(0))
    heap = PLAIN.classes()
    # From the heap's first record, whose header has 9 bytes; the root that counts is the second one of two.
    heap += filler(CHUNK - cut - 9 - len(heap) - around - len(PLAIN.root()) // 2) + PLAIN.root()
    before = PLAIN.root()[len(PLAIN.root()) // 2 :]
    for piece in (PLAIN.thread(), PLAIN.name(), PLAIN.array()):
        heap += filler(CHUNK - cut - len(before) - around) + piece
        before = piece
    dump = PLAIN.dump(heap)
    assert name_in(dump) == "http-8080-exec-1"
    assert name_in(members(dump, 1 << 20)) == "http-8080-exec-1"


@pytest.mark.parametrize("missing", ["root", "thread", "name", "array", "classes"])
def test_what_is_not_there_is_not_known(missing: str) -> None:
    pieces = {
        piece: getattr(PLAIN, piece)()
        for piece in ("classes", "root", "thread", "name", "array")
        if piece != missing
    }
    assert name_in(PLAIN.dump(*pieces.values())) is None


def test_a_dump_on_request_and_a_foreign_file_have_none() -> None:
    assert name_in(Maker().dump(oom=False)) is None
    assert name_in(b"no dump") is None
    assert name_in(b"") is None


def test_a_cut_dump_tells_the_name_if_its_pieces_are_there() -> None:
    dump = PLAIN.dump()
    assert name_in(dump[:-9]) == "http-8080-exec-1"
    assert name_in(dump[: dump.rindex(PLAIN.array())]) is None


def test_a_name_cannot_write_to_a_terminal_or_into_the_log() -> None:
    name = name_in(NamedThread(Maker(), b"a\x1b[2J\nb\0").dump())
    assert name == r"a\x1b[2J\nb\x00"


def test_a_name_of_a_mebibyte_is_cut() -> None:
    name = name_in(NamedThread(Maker(), b"x" * (1 << 20)).dump())
    assert name == "x" * 1024


def test_a_search_ends_when_it_is_told_to() -> None:
    dump = PLAIN.dump(PLAIN.classes(), filler(8 << 20), PLAIN.root())
    source = CountedReads(dump)
    look = Look(source)
    look.advance(len(dump), budget_bytes=None)
    before, reads = source.read_bytes, itertools.count()
    assert look.oom_thread(keep_on=lambda _bytes: next(reads) < 8) is None
    assert source.read_bytes - before < 6 << 20


def test_a_heap_of_nothing_but_likely_starts_is_given_up() -> None:
    """Each root's identifier leads nowhere: the first is believed, and its object is not found."""
    lies = PLAIN.root()[-17:] * 50_000
    assert name_in(PLAIN.dump(PLAIN.classes(), lies)) is None
    starts = (b"\x21" + Maker().id(0x7001)) * 200_000
    assert name_in(PLAIN.dump(PLAIN.classes(), PLAIN.root(), starts)) is None


def decoy(form: int = 0x7100) -> bytes:
    """Give an object whose values end in a reference to 0x..08, one to itself, and the serials of the dying thread."""
    make = Maker()
    values = make.id(0xE2003E08) + make.id(form) + (2).to_bytes(4, "big") + (3).to_bytes(4, "big")
    return b"\x21" + make.id(form) + bytes(4) + make.id(0x2004) + len(values).to_bytes(4, "big") + values


@pytest.mark.parametrize("many", [1, 150])
def test_bytes_of_a_harmless_object_that_look_like_the_thread_s_root_hid_its_name(many: int) -> None:
    """JDK 11 writes roots last, and a MethodTypeForm holds a reference ending in 08, itself, and two small numbers."""
    decoys = b"".join(decoy(0x7100 + 16 * number) for number in range(many))
    dump = PLAIN.dump(PLAIN.classes(), decoys, PLAIN.thread(), PLAIN.name(), PLAIN.array(), PLAIN.root())
    assert name_in(dump) == "http-8080-exec-1"
    assert name_in(members(dump, 1000)) == "http-8080-exec-1"


def test_a_thread_without_a_name_is_told_from_one_that_was_not_found() -> None:
    empty = NamedThread(Maker(), b"")
    assert name_in(empty.dump()) == ""
    without = PLAIN.thread().replace(Maker().id(0x7002), bytes(8))
    assert name_in(PLAIN.dump(PLAIN.classes(), PLAIN.root(), without)) == ""
    assert name_in(PLAIN.dump(PLAIN.classes(), PLAIN.root())) is None
