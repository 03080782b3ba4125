"""The list of all dumps leaves the bucket in forms that other tools read."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dumpagent.cli.commands import export
from dumpagent.cli.commands.export import row_of, write_ndjson, write_parquet
from dumpagent.fetch.stored import indexed
from dumpagent.index.entry import IndexEntry

NOON = 1_767_268_800


def entry(number: int, **more: object) -> IndexEntry:
    facts: dict[str, object] = {
        "path": f"shop/cart/java_pid{number}.hprof",
        "when": NOON + number,
        "stored_bytes": 1 << 40,
        "original_bytes": None,
        "crc32": 0xAB,
        "verdict": "complete",
        "cause": "oom",
        "node": "worker-1",
        "namespace": "shop",
        "pod": "",
        "workload": "cart",
        "cluster": "",
    }
    return IndexEntry(**{**facts, **more})  # type: ignore[arg-type]


def rows(*entries: IndexEntry) -> list[dict[str, object]]:
    return [row_of(indexed(each, prefix="p")) for each in entries]


def test_a_parquet_file_says_what_the_index_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export, "_ROWS_AT_ONCE", 2)
    path = tmp_path / "dumps.parquet"
    with open(path, "wb") as file:
        write_parquet(rows(entry(1), entry(2, cause="request"), entry(3, path="a\udcff.hprof")), file)
    table = pq.read_table(path)
    found = table.to_pylist()
    assert [row["key"] for row in found] == [
        "p/shop/cart/java_pid1.hprof",
        "p/shop/cart/java_pid2.hprof",
        "p/a\ufffd.hprof",
    ]
    first = found[0]
    assert first["dump_time"].timestamp() == NOON + 1
    assert (first["stored_bytes"], first["original_bytes"], first["crc32"]) == (1 << 40, None, "000000ab")
    assert (first["namespace"], first["workload"], first["pod"], first["cluster"]) == (
        "shop",
        "cart",
        None,
        None,
    )
    assert found[1]["cause"] == "request"


def test_an_empty_bucket_makes_a_parquet_file_with_all_columns() -> None:
    file = io.BytesIO()
    write_parquet([], file)
    file.seek(0)
    table = pq.read_table(file)
    assert (table.num_rows, table.num_columns) == (0, 13)


def test_lines_of_json_have_the_same_rows_with_times_that_people_read() -> None:
    file = io.BytesIO()
    write_ndjson(rows(entry(1)), file)
    (line,) = file.getvalue().splitlines()
    assert json.loads(line)["dump_time"] == "2026-01-01T12:00:01Z"
    assert json.loads(line)["workload"] == "cart"


def test_a_file_that_was_not_written_to_its_end_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "dumps.ndjson"
    path.write_text("the old one")

    def cut() -> None:
        with export._opened(str(path)) as file:
            file.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cut()
    assert {each.name: each.read_text() for each in tmp_path.iterdir()} == {"dumps.ndjson": "the old one"}
