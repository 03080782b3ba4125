"""What grew from one dump to the next is named by class and by who holds it; what only looks like growth is told."""

from __future__ import annotations

import dataclasses
import gzip
import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from dumpagent.analyze.analysis import Subject
from dumpagent.analyze.growth.compare import compare
from dumpagent.analyze.growth.measure import Measured, Ruler, measure, plain_name
from dumpagent.analyze.growth.model import SCHEMA_VERSION, ClassGrowth, Growth, OwnerGrowth, Side
from dumpagent.analyze.growth.report import growth_as_json, growth_as_text
from dumpagent.analyze.memory import Budget
from dumpagent.cli import cli
from dumpagent.hprof.source import InMemory
from tests.unit.analyze.heaps import cache_of, list_of
from tools.analysis_schema import GROWTH_PATH, growth_schema

PLENTY = Budget(1 << 40, lambda _text: None)


# Slow are the tests whose loops are compiled at their first call, which takes half a minute.


def measured(content: bytes, *, jvm: str | None = "21.0.8", like: Ruler | None = None) -> Measured:
    known = Subject("x", len(content), jvm=jvm)
    return measure(InMemory(content), known, PLENTY, step=lambda _title: lambda _bytes: None, like=like)


def growth(old: bytes, new: bytes, *, jvms: tuple[str | None, str | None] = ("21.0.8", "21.0.8")) -> Growth:
    now = measured(new, jvm=jvms[1])
    return compare(measured(old, jvm=jvms[0], like=now.ruler), now, rows=100)


def diff(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["diff", *map(str, arguments)], env={"S3_BUCKET": ""})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_field_that_holds_more_is_named_and_not_only_byte_arrays() -> None:
    found = growth(cache_of(100), cache_of(300))
    assert [(row.holder, row.label, row.kind) for row in found.owners] == [
        ("com.acme.Session", "payload", "field"),
        ("com.acme.Cache", "sessions", "static"),
    ]
    payload, cache = found.owners
    assert (payload.old_objects, payload.new_objects, payload.grown_objects) == (100, 300, 200)
    assert (payload.old_bytes, payload.new_bytes) == (100 * 1016, 300 * 1016)
    assert (cache.old_objects, cache.new_objects) == (101, 301)  # the sessions and their array
    assert cache.grown_bytes == 200 * 24 + 200 * 4
    assert found.comparable
    assert found.notes == ()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_classes_have_both_values_and_the_difference() -> None:
    rows = {row.name: row for row in growth(cache_of(100), cache_of(300)).classes}
    assert set(rows) == {"byte[]", "com.acme.Session", "com.acme.Session[]"}
    session = rows["com.acme.Session"]
    assert (session.old_instances, session.new_instances, session.grown_instances) == (100, 300, 200)
    assert (session.old_shallow_bytes, session.new_shallow_bytes) == (2400, 7200)
    assert session.grown_retained_bytes == 200 * (24 + 1016)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_larger_payloads_of_as_many_sessions_are_growth_too() -> None:
    found = growth(cache_of(100, payload_bytes=1000), cache_of(100, payload_bytes=3000))
    assert [(row.label, row.grown_objects, row.grown_bytes) for row in found.owners] == [
        ("payload", 0, 200_000)
    ]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("sessions", [40, 20_000])
def test_a_linked_list_belongs_to_who_holds_its_head(sessions: int) -> None:
    found = growth(list_of(10), list_of(sessions))
    assert {(row.holder, row.label): row.new_objects for row in found.owners} == {
        ("com.acme.Session", "payload"): sessions,
        ("com.acme.Cache", "sessions"): sessions,
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_wider_references_are_told_and_are_no_growth() -> None:
    found = growth(cache_of(100), cache_of(100, reference=8))
    assert found.owners == ()
    assert found.classes == ()
    assert not found.comparable
    assert any("compressed references" in note and "full references" in note for note in found.notes)
    grown = growth(cache_of(100), cache_of(150, reference=8))
    assert [(row.label, row.grown_objects) for row in grown.owners] == [("payload", 50), ("sessions", 50)]
    assert all(row.grown_retained_bytes is None for row in grown.classes)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_another_jvm_is_told() -> None:
    found = growth(cache_of(100), cache_of(100), jvms=("17.0.9", "21.0.8"))
    assert (found.owners, found.comparable) == ((), False)
    assert found.notes[0] == "the JVMs differ: 17.0.9, then 21.0.8"
    unknown = growth(cache_of(100), cache_of(100), jvms=(None, "21.0.8"))
    assert unknown.comparable
    assert unknown.notes == ("the JVM of OLD is not known; it is taken for the same",)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fillers_of_the_collector_are_told_and_are_no_growth() -> None:
    found = growth(cache_of(100), cache_of(100, fillers=1000))
    assert (found.owners, found.classes) == ((), ())
    assert any("fillers of the collector among them: 0, then 16,000" in note for note in found.notes)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_cut_dump_is_compared_as_far_as_it_goes_and_told() -> None:
    content = cache_of(300)
    found = growth(cache_of(10), content[: len(content) // 2])
    assert found.new.state == "truncated"
    assert any(note.startswith("NEW is cut off") for note in found.notes)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_command_compares_two_files_and_follows_its_schema(tmp_path: Path) -> None:
    old, new = tmp_path / "old.hprof", tmp_path / "new.hprof"
    old.write_bytes(cache_of(100))
    new.write_bytes(cache_of(300))
    said = diff(old, new)
    assert said.exit_code == 0, said.output
    assert "com.acme.Session.payload" in said.stdout
    answer = diff(old, new, "--json", "--rows", "1")
    values = json.loads(answer.stdout)
    jsonschema.validate(values, json.loads(GROWTH_PATH.read_text()))
    assert [row["label"] for row in values["owners"]] == ["payload"]
    assert len(values["classes"]) == 1
    assert diff(old, new, "--memory", "1KiB").exit_code == 3
    assert "Nothing grew." in diff(new, old).stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_gzip_and_arrays_in_files_give_the_same_answer(tmp_path: Path) -> None:
    old, new, packed, spill = (
        tmp_path / name for name in ("old.hprof", "new.hprof", "new.hprof.gz", "spill")
    )
    old.write_bytes(cache_of(100))
    new.write_bytes(cache_of(300))
    packed.write_bytes(gzip.compress(new.read_bytes()))
    spill.mkdir()
    answers = [
        json.loads(diff(*words, "--json").stdout)
        for words in ([old, new], [old, packed], [old, new, "--spill", spill])
    ]
    assert answers[0]["owners"]
    for table in ("owners", "classes", "notes"):
        assert answers[0][table] == answers[1][table] == answers[2][table]
    assert not list(spill.iterdir())


def test_bad_use_says_what_to_do(tmp_path: Path) -> None:
    junk = tmp_path / "junk.hprof"
    junk.write_bytes(b"no heap dump" * 10)
    cases: list[tuple[list[object], str]] = [
        ([junk], "give OLD and NEW"),
        ([junk, junk, junk], "give OLD and NEW"),
        ([junk, junk, "--previous"], "NEW alone with --previous"),
        ([junk, "--previous"], "is a file"),
        ([junk, junk], "junk.hprof: it is not a heap dump"),
        ([junk, tmp_path / "missing"], "missing"),
        ([tmp_path / "missing", junk], "missing"),
        ([tmp_path, tmp_path], "name a file"),
        ([junk, junk, "--memory", "much"], "6GiB"),
    ]
    for arguments, told in cases:
        result = diff(*arguments)
        assert result.exit_code == 2, (arguments, result.output)
        assert told in result.output


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("com.acme.Shop$$Lambda$14/0x0000000800c03000", "com.acme.Shop$$Lambda$15/0x0000000801c03000"),
        ("com.acme.Shop$$Lambda/0x000001", "com.acme.Shop$$Lambda+0x0000af"),
        ("com.sun.proxy.$Proxy12", "com.sun.proxy.$Proxy9"),
        ("jdk.internal.reflect.GeneratedMethodAccessor1", "jdk.internal.reflect.GeneratedMethodAccessor27"),
    ],
)
def test_classes_made_at_run_time_are_one_under_any_number(first: str, second: str) -> None:
    assert plain_name(first) == plain_name(second)


def test_other_classes_keep_their_numbers() -> None:
    assert plain_name("com.acme.Base64$Page2") == "com.acme.Base64$Page2"
    assert plain_name("com.acme.Outer$1") == "com.acme.Outer$1"


SIDE = Side("a.hprof", 10, None, None, "complete", "compressed references", 1, 2, 3)
GROWN = Growth(
    SCHEMA_VERSION, SIDE, SIDE, False, ("a note",), (OwnerGrowth("A", "b", "static", 1, 2, 1, 16, 32, 16),),
    (ClassGrowth("A", 1, 2, 1, 16, 32, 16, None, None, None),),
)  # fmt: skip


def test_the_schema_of_growth_is_that_of_the_values() -> None:
    """`python -m tools.analysis_schema` writes it."""
    assert GROWTH_PATH.read_text() == growth_schema()
    jsonschema.validate(json.loads(growth_as_json(GROWN)), json.loads(growth_schema()))


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07\x1b[2J", "\u202eevil\ud800\r"])
def test_a_name_in_a_dump_does_not_steer_who_reads_what_grew(name: str) -> None:
    hostile = dataclasses.replace(
        GROWN,
        notes=(name,),
        old=dataclasses.replace(SIDE, name=name, jvm=name),
        owners=(dataclasses.replace(GROWN.owners[0], holder=name, label=name),),
        classes=(dataclasses.replace(GROWN.classes[0], name=name),),
    )
    text = growth_as_text(hostile)
    assert not [each for each in text if each != "\n" and (ord(each) < 32 or 0x7F <= ord(each) < 0xA0)]
    assert "\u202e" not in text
    text.encode()
    growth_as_json(hostile).encode("ascii")


def test_without_the_extra_it_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['numba'] = None; from dumpagent.cli import cli; cli(['diff', 'a', 'b'])"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert said.returncode == 2
    assert "pip install 'dumpagent[analyze]'" in said.stderr
