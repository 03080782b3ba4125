"""Draws the findings for a person."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dumpagent.doctor.finding import Finding, Result
from dumpagent.observe.log import printable

_COLOURS = {Result.OK: "green", Result.WARNING: "yellow", Result.FAILED: "bold red", Result.SKIPPED: "dim"}


def show(findings: Iterable[Finding]) -> None:
    """Print a table with what was seen, and what to do about it, on stdout."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("Check", "Result", "Seen", "What to do"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        seen, fix = (str(printable(text)) for text in (finding.seen, finding.fix))
        table.add_row(
            finding.name, Text(finding.result.value, _COLOURS[finding.result]), Text(seen), Text(fix)
        )
    Console().print(table)
