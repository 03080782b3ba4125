"""Lists of file name patterns, as INCLUDE, EXCLUDE and COMPANIONS have them."""

from __future__ import annotations

import fnmatch
import re

_MOST = 100  # patterns of one list


class Globs:
    """Patterns separated by commas or blanks: `*.dump, scratch/*`. `*` stands for any text, `?` for one character.

    A pattern with a slash is compared with the whole path below DUMP_ROOT, another one with the last name alone.
    """

    def __init__(self, text: str) -> None:
        patterns = [each for each in re.split(r"[,\s]+", text) if each][:_MOST]
        self._names = _all_of([each for each in patterns if "/" not in each])
        self._paths = _all_of([each.strip("/") for each in patterns if "/" in each])

    def match(self, name: str, below: str = "") -> bool:
        """Say whether a pattern fits the file or directory `name` of the directory `below`, relative to DUMP_ROOT."""
        if self._names is not None and self._names.match(name):
            return True
        return self._paths is not None and self._paths.match(f"{below}/{name}" if below else name) is not None

    def __bool__(self) -> bool:
        return self._names is not None or self._paths is not None


def _all_of(patterns: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None


# What a dying JVM leaves beside its dump, and what tells how it came to that.
CRASH_FILES = "hs_err_pid*.log, hs_err*.log, replay_pid*.log, replay*.log, javacore*.txt, Snap*.trc, *threaddump*, *thread-dump*, jitdump*.dmp"
LOGS = "gc*.log, gc*.log.*, *gc.log, *gc.log.*, *.jfr"
COMPANIONS = f"{CRASH_FILES}, {LOGS}"
