"""Gives the documentation site its navigation: the sections and links of docs/README.md, in their order.

Run by mkdocs as a hook. Source: MkDocs, "Configuration", hooks; "Plugins", on_config.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

Entry = dict[str, Any] | str


def navigation(index: str) -> list[Entry]:
    """Give the navigation for the text of docs/README.md."""
    found: list[Entry] = ["README.md"]
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        title, _, body = section.partition("\n")
        pages = [
            {name: page} for name, page in re.findall(r"^\| \[([^\]]+)\]\(([\w-]+\.md)\)", body, re.MULTILINE)
        ]
        found.append({title.strip(): pages})
    return found


def on_config(config: Any) -> Any:
    """Set the navigation before mkdocs looks for pages."""
    config["nav"] = navigation((Path(config["docs_dir"]) / "README.md").read_text())
    return config
