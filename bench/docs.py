"""Puts the tables and plots of a bench report into docs/performance.md: `python -m bench.docs build/bench`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from bench.report import text

BEGIN, END = "<!-- written by make bench-docs: begin -->\n", "<!-- end -->\n"


def put_in(page: str, figures: str) -> str:
    """Give the page with `figures` between its two marks. Raises ValueError where it has none."""
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError("the page has no place for figures")
    return before + BEGIN + "\n" + figures.strip() + "\n\n" + END + after


def render(folder: Path, docs: Path) -> None:
    """Put into performance.md what report.json of `folder` says, and the plots beside it."""
    values = json.loads((folder / "report.json").read_text())
    if not values["mount"] and (folder / "mount.json").exists():  # of a `make bench-mount` by itself
        values["mount"] = json.loads((folder / "mount.json").read_text())
    figures = text(values)
    for plot in sorted(folder.glob("*.svg")):
        shutil.copyfile(plot, docs / f"performance-{plot.name}")
        figures += f"\n![{plot.stem}](performance-{plot.name})\n"
    page = docs / "performance.md"
    page.write_text(put_in(page.read_text(), figures))


if __name__ == "__main__":
    render(Path(sys.argv[1]), Path(__file__).parents[1] / "docs")
