"""`dumpagent upload`: brings finished dumps to S3."""

from __future__ import annotations

import click


@click.command("upload")
def command() -> None:
    """Find finished heap dumps and bring them to S3."""
