"""Links between the pages lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_PROJECT = Path(__file__).parents[2]
_PAGES = sorted([*(_PROJECT / "docs").glob("*.md"), *_PROJECT.glob("*.md")])
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
_HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)


def _anchors(page: Path) -> set[str]:
    """Give the anchors of a page's headings. Source: how GitHub makes them: lower case, punctuation out, blanks to hyphens."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(text)}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """A guide never sends its reader to a page or a section that is not there."""
    for target, anchor in _LINK.findall(page.read_text()):
        linked = (page.parent / target).resolve() if target else page
        assert linked.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in _anchors(linked), f"{page.name}: {target}#{anchor}"


def test_the_index_names_every_page() -> None:
    """A page that nobody finds was written for nobody."""
    index = (_PROJECT / "docs" / "README.md").read_text()
    assert [
        p.name
        for p in (_PROJECT / "docs").glob("*.md")
        if p.name != "README.md" and f"({p.name})" not in index
    ] == []
