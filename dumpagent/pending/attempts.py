"""What a bucket remembers of analyses that were begun: the keys of those notes, and what follows from them; pure.

    <S3_PREFIX>/.dumpagent/analysis/<path of the dump>~0!claim             a job works on it, or was killed
    <S3_PREFIX>/.dumpagent/analysis/<path of the dump>~0!failed!0.2.0      the analysis failed, in that version
    <S3_PREFIX>/.dumpagent/analysis/<path of the dump>~0!no-heap!0.2.0     there is nothing to analyze
    <S3_PREFIX>/.dumpagent/analysis/<path of the dump>~0!needs!0.2.0!9000  it takes so many bytes of memory

Attempts are numbered from 0, so that of two jobs that begin the same attempt the store lets one have the claim.
A listing tells all of it: nothing but a claim is ever read.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from dumpagent.dumps.keys import own_key
from dumpagent.store.protocol import StoredObject

ATTEMPTS_MOST = 3
# Source: S3 User Guide, "Object key naming": 1,024 bytes; stores that keep objects as files take 255 between two slashes.
_KEY_BYTES, _NAME_BYTES = 900, 200
_NOTE = re.compile(
    r"(?P<dump>.+)~(?P<number>[0-9]{1,6})!(?P<what>claim|failed|no-heap|needs)"
    r"(?:!(?P<version>[^!/]*))?(?:!(?P<bytes>[0-9]{1,18}))?",
    re.DOTALL,
)


class Ending(enum.Enum):
    """How an attempt ended without a report."""

    FAILED = "failed"
    NO_HEAP = "no-heap"
    TOO_LARGE = "needs"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. Without an `ending` it is under way, or its job was killed: then `claim` tells which.

    `need_bytes` of memory are known where it was too large; `version` is that of the dumpagent that ended it.
    """

    number: int
    claim: StoredObject | None = None
    ending: Ending | None = None
    version: str = ""
    need_bytes: int | None = None


class Eligibility(enum.Enum):
    """What earlier attempts leave to do."""

    FREE = "free"
    CLAIMED = "claimed"  # by a job that may still live: its claim tells until when
    NO_HEAP = "no heap"
    TOO_LARGE = "too large"
    GIVEN_UP = "given up"


def folder_of_notes(prefix: str) -> str:
    """Give what the keys of all notes below S3_PREFIX begin with."""
    return own_key(prefix, "analysis/")


def name_of(path: str) -> str:
    """Give the name under which notes about the dump of that path stand; that of a long path is its hash."""
    raw = path.encode(errors="surrogateescape")
    if len(raw) <= _KEY_BYTES and max(len(name) for name in raw.split(b"/")) <= _NAME_BYTES:
        return path
    return f"~{hashlib.sha256(raw).hexdigest()}"


def claim_key(path: str, number: int, *, prefix: str) -> str:
    """Give the key of the claim of an attempt."""
    return f"{folder_of_notes(prefix)}{name_of(path)}~{number}!claim"


def ending_key(path: str, attempt: Attempt, *, prefix: str) -> str:
    """Give the key of the note that an attempt has ended."""
    assert attempt.ending is not None  # noqa: S101 - a programming error
    parts = [f"~{attempt.number}", attempt.ending.value, attempt.version]
    if attempt.need_bytes is not None:
        parts.append(str(attempt.need_bytes))
    return f"{folder_of_notes(prefix)}{name_of(path)}{'!'.join(parts)}"


def notes_by_dump(objects: Iterable[StoredObject], *, prefix: str) -> dict[str, list[StoredObject]]:
    """Give the notes among objects by the `name_of` of their dump."""
    found: dict[str, list[StoredObject]] = {}
    folder = folder_of_notes(prefix)
    for stored in objects:
        if not stored.key.startswith(folder):
            continue
        if told := _NOTE.fullmatch(stored.key.removeprefix(folder)):
            found.setdefault(told["dump"], []).append(stored)
    return found


def attempts_in(notes: Iterable[StoredObject], *, prefix: str) -> list[Attempt]:
    """Give the attempts that notes of one dump tell of, by number."""
    found: dict[int, Attempt] = {}
    for stored in notes:
        told = _NOTE.fullmatch(stored.key.removeprefix(folder_of_notes(prefix)))
        if told is None:
            continue
        number = int(told["number"])
        if told["what"] == "claim":
            if number not in found:
                found[number] = Attempt(number, claim=stored)
            continue
        need = int(told["bytes"]) if told["bytes"] else None
        found[number] = Attempt(number, None, Ending(told["what"]), told["version"] or "", need)
    return [found[number] for number in sorted(found)]


def eligibility_of(attempts: list[Attempt], *, version: str, limit_bytes: int, is_live: bool) -> Eligibility:
    """Say what is to be done about a dump. `is_live`: the claim of its last attempt has not expired.

    A new version of dumpagent tries again what an older one failed at; more memory, what was too large.
    """
    if not attempts:
        return Eligibility.FREE
    last = attempts[-1]
    if last.ending is None:
        if is_live:
            return Eligibility.CLAIMED
    elif last.ending is Ending.NO_HEAP and last.version == version:
        return Eligibility.NO_HEAP
    elif last.ending is Ending.TOO_LARGE and last.version == version and (last.need_bytes or 0) > limit_bytes:
        return Eligibility.TOO_LARGE
    spent = [each for each in attempts if each.ending is None or _counts(each, version)]
    return Eligibility.GIVEN_UP if len(spent) >= ATTEMPTS_MOST else Eligibility.FREE


def next_number(attempts: list[Attempt]) -> int:
    """Give the number of the next attempt."""
    return attempts[-1].number + 1 if attempts else 0


def _counts(attempt: Attempt, version: str) -> bool:
    return attempt.ending is Ending.FAILED and attempt.version == version
