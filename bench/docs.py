"""Puts the tables and plots of a bench report into docs/performance.md: `python -m bench.docs build/bench`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

BEGIN, END = "<!-- written by make bench-docs: begin -->\n", "<!-- end -->\n"
_DOCS = Path(__file__).parents[1] / "docs"


def put_in(page: str, figures: str) -> str:
    """Give the page with `figures` between its two marks. Raises ValueError where it has none."""
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError("the page has no place for figures")
    return before + BEGIN + "\n" + figures.strip() + "\n\n" + END + after


def main() -> None:
    """Copy report.md and the plots of the named folder."""
    folder = Path(sys.argv[1])
    figures = (folder / "report.md").read_text()
    for plot in sorted(folder.glob("*.svg")):
        shutil.copyfile(plot, _DOCS / f"performance-{plot.name}")
        figures += f"\n![{plot.stem}](performance-{plot.name})\n"
    page = _DOCS / "performance.md"
    page.write_text(put_in(page.read_text(), figures))


if __name__ == "__main__":
    main()
