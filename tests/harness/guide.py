"""The deployment guide as a program: its shell blocks by section, and which of them say why tests do not run them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_BLOCK = re.compile(
    r"(?:^(?P<values><!-- values -->)\n|^\*Not run in the tests: (?P<why_not>[^\n]*)\.\*\n\n)?"
    r"^```sh\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_SECTION = re.compile(r"^## (?P<title>.+)$", re.MULTILINE)
# A person reads on when the cluster is slow; a script has to wait.
_PROLOGUE = "set -euo pipefail\n"


@dataclass(frozen=True)
class Block:
    """One shell block. `why_not` is empty if tests run it; `values` says that it sets what only the reader knows."""

    section: str
    code: str
    why_not: str
    values: bool


def blocks(page: Path) -> list[Block]:
    """Give the shell blocks of a guide, in order."""
    text = page.read_text()
    sections = list(_SECTION.finditer(text))
    found = []
    for match in _BLOCK.finditer(text):
        title = next((s["title"] for s in reversed(sections) if s.start() < match.start()), "")
        found.append(Block(title, match["code"], match["why_not"] or "", bool(match["values"])))
    return found


def script(page: Path, section: str, values: dict[str, str]) -> str:
    """Give a section as one bash script, with these values for those that the guide leaves to its reader.

    Raises AssertionError if the guide asks for other values, or if the section has nothing to run.
    """
    asked = {
        name
        for block in blocks(page)
        if block.values
        for name in re.findall(r"^export ([A-Z0-9_]+)=", block.code, re.MULTILINE)
    }
    assert asked == set(values), f"the guide asks for {sorted(asked)}"
    run = [b.code for b in blocks(page) if b.section == section and not b.why_not and not b.values]
    assert run, f"{page.name} has nothing to run under {section!r}"
    return _PROLOGUE + "\n".join(run)
