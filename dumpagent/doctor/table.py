"""Draws the findings for a person."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dumpagent.doctor.finding import Finding, Result
from dumpagent.observe.log import printable

_COLOURS = {Result.OK: "green", Result.WARNING: "yellow", Result.FAILED: "bold red", Result.SKIPPED: "dim"}
_CLEARED_LINE = "\r\x1b[K"  # Source: ECMA-48, EL
_WIDE = 110  # columns from which two columns of sentences can be read side by side


def collect(findings: Iterable[Finding]) -> list[Finding]:
    """Give all findings; to a person at a terminal, say meanwhile what was looked at last."""
    collected: list[Finding] = []
    watched = sys.stderr.isatty()
    for finding in findings:
        collected.append(finding)
        if watched:  # by hand: rich would draw from a thread, and the checks fork
            sys.stderr.write(f"{_CLEARED_LINE}looked at: {finding.name} ({finding.result.value}) ")
            sys.stderr.flush()
    if watched:
        sys.stderr.write(_CLEARED_LINE)
    return collected


def show(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print a table with what was seen and what to do about it, and how many failed, on stdout."""
    console = console or Console()
    wide = console.width >= _WIDE
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in (
        ("Check", "Result", "Seen", "What to do") if wide else ("Check", "Result", "Seen, and what to do")
    ):
        table.add_column(title, overflow="fold", no_wrap=title in ("Check", "Result"))
    for finding in findings:
        seen, fix = _text(finding.seen), _text(finding.fix)
        told = (seen, fix) if wide else (Text("\n-> ").join([seen, fix]) if finding.fix else seen,)
        table.add_row(finding.name, Text(finding.result.value, _COLOURS[finding.result]), *told)
    console.print(table)
    console.print(_summary(Counter(finding.result for finding in findings)))


def _text(said: str) -> Text:
    """Give what may come from a file name or a store's answer, as no terminal takes it for a command."""
    return Text(str(printable(said)))


def _summary(count: Counter[Result]) -> Text:
    worst = next(
        result
        for result in (Result.FAILED, Result.WARNING, Result.OK)
        if count[result] or result is Result.OK
    )
    said = [f"{count[result]} {result.value}" for result in Result if count[result]]
    return Text(f"\n{', '.join(said)}", _COLOURS[worst])
