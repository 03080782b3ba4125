"""What the project's owner names, read from project.env: images and addresses."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).parent.parent


def names() -> dict[str, str]:
    """Give IMAGE, ANALYZE_IMAGE, DEMO_IMAGE, PROJECT_URL and DOCS_URL; a name whose value is not known yet is empty."""
    lines = (PROJECT / "project.env").read_text().splitlines()
    pairs = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def runbook_url(alert: str) -> str:
    """Give where the runbook of an alert is: on the published site, or in a checkout while there is none."""
    site = names()["DOCS_URL"].rstrip("/")
    return f"{site}/runbooks/#{alert.lower()}" if site else f"docs/runbooks.md#{alert.lower()}"
