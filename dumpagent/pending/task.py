"""What the process that analyzes one dump is told to do."""

from __future__ import annotations

from dataclasses import dataclass

JSON_NAME, HTML_NAME = "analysis.json", "analysis.html"


@dataclass(frozen=True, slots=True)
class Task:
    """Analyze the dump `name` of `size_bytes` in at most `limit_bytes` of memory; write the reports into `folder`.

    `parent` is the process that asks; `spill` a directory for what memory does not hold.
    """

    name: str
    size_bytes: int
    folder: str
    parent: int
    limit_bytes: int
    rows: int = 200
    strings: bool = True
    show_text: bool = True
    spill: str | None = None
