"""The figures of the docs are those of the bench, and nothing else of the page changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.docs import BEGIN, END, put_in, render
from bench.report import MIB, Row, demands, text
from bench.speed import speed
from bench.stage import Conditions

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
    assert "The machine's own speed: unknown." in page
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


def test_each_table_says_how_fast_the_machine_was() -> None:
    """The figures of two machines are not compared as if they were of two clients."""
    values = json.loads(RECORDED.read_text())
    values["about"]["speed"] = speed()
    page = text(values)
    tables = [part for part in page.split("### ")[1:] if "|---|" in part]
    assert len(tables) > 3
    for table in tables:
        assert "The machine's own speed, per CPU second: SHA-256 " in table


def test_an_upload_is_held_to_the_raw_socket_and_its_start_to_aws_cli() -> None:
    """What no client can reach is not asked for; the peak counts in every row, the narrow line too."""
    recorded = json.loads(RECORDED.read_text())["rows"][0]

    def row(client: str, conditions: Conditions, **figures: float) -> Row:
        return Row(**{**recorded, "client": client, "conditions": conditions, **figures})

    free, narrow = Conditions(), Conditions(mbit=100, cpus=0.2, memory_bytes=256 * MIB, cold=True)
    asked = demands(
        [
            row("dumpagent", free, net_cpu_s=1.11, startup_cpu_s=0.3),
            row("raw socket", free, net_cpu_s=1.0),
            row("aws-cli", free, startup_cpu_s=0.5),
            row("dumpagent", narrow, peak_bytes=70 * MIB),
            row("dumpagent-gzip", narrow, peak_bytes=256 * MIB),
        ],
        {},
        {},
    )
    answers = {demand.text: (demand.value, demand.met) for demand in asked}
    assert answers["https, start-up subtracted: CPU against the raw socket"] == (1.11, False)
    assert answers["start-up of `upload --once`: CPU against aws-cli"] == (0.6, False)
    assert answers["cgroup peak, in every row"] == (256, False)
