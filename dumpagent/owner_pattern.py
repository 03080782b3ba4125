"""OWNER_PATTERN: a regular expression for other layouts of the volume, which no path can make slow."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

GROUPS = frozenset({"namespace", "pod", "workload"})
LONGEST_PATH = 1024  # characters; a longer path is not asked about
_ALLOWED_S = 0.02  # measured: what people write takes 20 microseconds on the longest path


class BadPattern(ValueError):
    """The pattern cannot be used; the message is a clause that says why."""


def compile_pattern(text: str) -> re.Pattern[str]:
    """Give the compiled pattern, which has been tried on paths made to slow it down. Raises BadPattern."""
    if len(text) > LONGEST_PATH:
        raise BadPattern(f"it has more than {LONGEST_PATH} characters")
    try:
        pattern = re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadPattern(f"it is no regular expression: {error}") from error
    foreign = set(pattern.groupindex) - GROUPS
    if foreign:
        raise BadPattern(f"it has a group {min(foreign)!r}; the groups are {', '.join(sorted(GROUPS))}")
    if not pattern.groupindex:
        raise BadPattern(r"it has no named group such as (?P<namespace>[^/]+)")
    _try(pattern)
    return pattern


def _try(pattern: re.Pattern[str]) -> None:
    """Match ever longer paths that a tenant could make. Each step is little longer than the one before, so none takes long."""
    for piece in _pieces(pattern.pattern):
        size = 4
        while size <= LONGEST_PATH:
            path = (piece * size)[:size]
            for tail in ("", "\0", "/", "/x.hprof\0"):
                began = time.thread_time()
                pattern.fullmatch(path + tail)
                if time.thread_time() - began > _ALLOWED_S:
                    raise BadPattern(
                        f"a path of {size} characters takes it more than {_ALLOWED_S * 1000:.0f} ms: a repeat inside a repeat, or several "
                        "that match the same text; use [^/]+ between slashes"
                    )
            size = max(size + 2, size * 6 // 5)


def _pieces(text: str) -> Iterator[str]:
    """Give what paths are made of that could fit the pattern in many ways."""
    letters = dict.fromkeys(letter for letter in re.sub(r"\(\?P<\w+>", "", text) if letter.isalnum())
    yield from ("a", "0", "A", "-", "_", ".", "/", "a/", "a-", "a_", "a.", "0-", "a-0/")
    yield from list(letters)[:20]
