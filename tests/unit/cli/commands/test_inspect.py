"""`dumpagent inspect`: the verdict is the exit code, and every file gets an answer that says what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dumpagent.cli import cli
from tests.harness.hprof import Maker, members

DUMP = Maker().dump()


def inspect(*arguments: object) -> Result:
    result = CliRunner().invoke(cli, ["inspect", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    path = tmp_path / "java_pid1.hprof"
    path.write_bytes(DUMP)
    return path


def test_a_complete_dump_tells_its_story(dump: Path) -> None:
    result = inspect(dump)
    assert result.exit_code == 0
    for line in (
        "complete",
        "OutOfMemoryError",
        "2026-01-01T12:00:00Z",
        'openjdk version "21.0.8" 2025-07-15',
        "JAVA PROFILE 1.0.2, 8-byte identifiers",
        "2 loaded",
        "at com.acme.Shop.fill(Shop.java:42)",
        "3, 3 of them arrays",
    ):
        assert line in result.output
    assert "byte[]" not in result.output


def test_a_gzip_dump_reads_the_same(dump: Path, tmp_path: Path) -> None:
    packed = tmp_path / "copy.hprof.gz"
    packed.write_bytes(members(DUMP, 200))
    plain, unpacked = (json.loads(inspect("--json", "--histogram", path).output) for path in (dump, packed))
    for each in (plain, unpacked):
        del each["path"], each["size_bytes"], each["reason"]
    assert plain == unpacked


def test_the_first_bytes_of_a_foreign_file_are_shown_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "x.hprof").write_bytes(b"\xeb\x01\x1b[2J")
    assert r"it begins with '\xeb\x01\x1b[2J', not with" in inspect(tmp_path / "x.hprof").output


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (DUMP[:-9], 1, "truncated"),
        (DUMP[:-100], 1, "truncated"),
        (members(DUMP)[:-9], 1, "truncated"),
        (DUMP + b"x", 1, "truncated"),
        (b"", 2, "not a heap dump"),
        (b"PK\x03\x04 a jar", 2, "not a heap dump"),
        (members(b"text"), 2, "not a heap dump"),
    ],
)
@pytest.mark.parametrize("more", [[], ["--quick"], ["--histogram"], ["--json"]])
def test_the_exit_code_is_the_verdict(
    tmp_path: Path, content: bytes, code: int, word: str, more: list[str]
) -> None:
    path = tmp_path / "x.hprof"
    path.write_bytes(content)
    result = inspect(path, *more)
    assert result.exit_code == code
    assert word.replace(" ", "-" if "--json" in more else " ").replace("not-a-heap", "not-a") in result.output


def test_a_dump_that_is_still_written_is_not_called_truncated(dump: Path) -> None:
    with dump.open("r+b"):
        result = inspect(dump)
    assert result.exit_code == 1
    assert "still being written" in result.output


def test_of_several_files_each_is_told_and_the_worst_decides(dump: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.hprof"
    cut.write_bytes(DUMP[:-9])
    assert inspect(dump, dump).exit_code == 0
    assert inspect(dump, cut, dump).exit_code == 1
    result = inspect(tmp_path / "gone.hprof", cut, dump)
    assert result.exit_code == 2
    assert result.output.count("JAVA PROFILE") == 2


@pytest.mark.parametrize("number", [[], ["1"]])
def test_the_histogram_takes_a_number_or_none(dump: Path, number: list[str]) -> None:
    result = inspect("--histogram", *number, dump)
    assert result.exit_code == 0
    assert "byte[]" in result.output
    assert "100.0%" in result.output


@pytest.mark.parametrize(
    "arguments", [["--histogram", "0"], ["--histogram", "-3"], ["--quick", "--histogram"]]
)
def test_what_cannot_be_is_refused(dump: Path, arguments: list[str]) -> None:
    assert inspect(*arguments, dump).exit_code == 2


def test_what_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "gone", tmp_path, tmp_path / "link", tmp_path / "fifo", "-"):
        result = inspect(path)
        assert result.exit_code == 2
        assert "hint: " in result.output


def test_a_part_of_a_dump_is_told_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "java_pid1.hprof.p0"
    path.write_bytes(b"\x21" * 100)
    result = inspect(path)
    assert result.exit_code == 2
    assert "a part of java_pid1.hprof" in result.output


def test_json_holds_every_field_also_where_nothing_is_known(tmp_path: Path, dump: Path) -> None:
    path = tmp_path / "n\udcff.hprof"
    path.write_bytes(b"")
    empty, full = (json.loads(line) for line in inspect("--json", path, dump).output.splitlines())
    assert empty.keys() == full.keys()
    assert empty["state"] == "not-a-dump"
    assert full["heap"]["objects"] == 3
    assert full["oom_stack"] == ["com.acme.Shop.fill(Shop.java:42)", "com.acme.Shop.run(Native Method)"]
    assert full["cause"] == "oom"
