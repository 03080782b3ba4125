"""Commands that a person is told to run, as a shell takes them."""

from __future__ import annotations

import shlex


def fetch_command(key: str) -> str:
    """Give the command that fetches the object `key`, whatever is in its name; the bucket is the reader's S3_BUCKET."""
    return f"dumpagent get {'-- ' if key.startswith('-') else ''}{shlex.quote(key)}"
