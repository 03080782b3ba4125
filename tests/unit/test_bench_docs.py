"""The figures of the docs are those of the bench, and nothing else of the page changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.docs import BEGIN, END, put_in, render
from bench.report import MIB, demands

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
RECORDED = (
    Path(__file__).parent / "bench_report.json"
)  # of a real run that Ctrl-C ended, with some rows left out


def test_new_figures_replace_the_old_ones_and_leave_the_prose() -> None:
    once = put_in(f"before\n{BEGIN}old\n{END}after\n", "| new |")
    assert once == f"before\n{BEGIN}\n| new |\n\n{END}after\n"
    assert put_in(once, "| new |") == once


def test_the_page_has_a_place_for_them() -> None:
    assert "| x |" in put_in(PAGE.read_text(), "| x |")


def test_a_page_without_a_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="no place"):
        put_in("prose\n", "| x |")


def rendered(folder: Path) -> str:
    docs = folder / "docs"
    docs.mkdir()
    (docs / "performance.md").write_text(f"before\n{BEGIN}{END}after\n")
    render(folder, docs)
    return (docs / "performance.md").read_text()


def test_what_a_run_wrote_is_in_the_page_with_its_plots(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(RECORDED.read_text())
    (tmp_path / "cpu.svg").write_text("<svg/>")
    page = rendered(tmp_path).splitlines()
    assert page[0] == "before"
    assert page[-1] == "after"
    assert "ended early" in page[3]
    assert "### 242 MiB over https, inside 200m / 256 MiB, cold cache" in page
    assert "| raw socket | 0.71 ±0.02 | 0.56 | 0.39 | 0.50 | 34 | 1.001 | 2 | 3 |" in page
    assert "| the same against the raw socket | 1.3 | 2.56 | **not met** |" in page
    assert "| the same against boto3 upload_file | 0.4 | not measured | ? |" in page
    assert "### Mount mode" in page
    assert any(line.startswith("| files lost, no CPU limit | 0 files | 0.00 files | met |") for line in page)
    assert "![cpu](performance-cpu.svg)" in page
    assert (tmp_path / "docs" / "performance-cpu.svg").exists()


def test_mount_figures_taken_by_themselves_are_in_the_page_too(tmp_path: Path) -> None:
    values = json.loads(RECORDED.read_text())
    (tmp_path / "mount.json").write_text(json.dumps(values["mount"]))
    (tmp_path / "report.json").write_text(json.dumps({**values, "mount": []}))
    assert "| files lost, no CPU limit |" in rendered(tmp_path)


def test_a_run_that_was_ended_before_its_first_figure_makes_a_page(tmp_path: Path) -> None:
    values = json.loads(RECORDED.read_text())
    (tmp_path / "report.json").write_text(json.dumps({**values, "rows": [], "mount": [], "demands": []}))
    assert "### Mount mode" not in rendered(tmp_path)


def test_the_memory_of_a_plain_upload_is_not_that_of_one_that_compresses() -> None:
    asked = demands([], {}, {"rss_5_gib": 55 * MIB, "rss_5_gib_gzip": 95 * MIB})
    measured = {demand.text: demand.value for demand in asked}
    assert measured["peak RSS of a plain upload, any size"] == 55
    assert measured["peak RSS of a 5 GiB upload, plain and gzip"] == 95
