"""What the doctor prints can be read on any terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dumpagent.doctor.finding import Finding, Result
from dumpagent.doctor.table import collect, show

FINDINGS = [
    Finding("volume", Result.OK, "/mnt/dump can be listed"),
    Finding(
        "volume writes",
        Result.FAILED,
        "No space left on device",
        "the volume is full: " + "delete or move dumps, " * 5,
    ),
    Finding("storage class", Result.WARNING, "[red]\x1b[2J\udcff", "set S3_STORAGE_CLASS"),
]


def shown(width: int) -> str:
    out = io.StringIO()
    show(FINDINGS, Console(file=out, width=width))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 140, 200])
def test_every_finding_stands_there_with_what_to_do_and_within_the_width(width: int) -> None:
    said = shown(width)
    assert max(map(len, said.splitlines())) <= width
    for finding in FINDINGS:
        assert finding.name in said
        assert finding.fix.split(":")[0] in said
    assert "No space left on device" in said
    assert said.endswith("1 ok, 1 warning, 1 failed\n")


def test_what_to_do_stands_below_what_was_seen_where_there_is_no_room_beside_it() -> None:
    assert "-> the volume is full" in shown(80)
    assert "->" not in shown(140)


def test_text_from_outside_is_no_markup() -> None:
    assert "[red]" in shown(140)
    assert "\\xff" in shown(140)
    assert "\x1b" not in shown(140)


def test_what_is_looked_at_is_told_to_terminals_alone(capfd: pytest.CaptureFixture[str]) -> None:
    assert collect(iter(FINDINGS)) == FINDINGS
    assert capfd.readouterr() == ("", "")
