"""S3_PREFIX as it stands in keys: with one slash behind it, however people wrote it."""

from __future__ import annotations


def below(prefix: str) -> str:
    """Give what the keys below S3_PREFIX begin with: nothing, or the prefix with a slash."""
    clean = prefix.strip("/")
    return f"{clean}/" if clean else ""


def path_of(key: str, *, prefix: str) -> str:
    """Give the part of a key that stands below S3_PREFIX; a key that lies elsewhere as it is."""
    return key.removeprefix(below(prefix))
