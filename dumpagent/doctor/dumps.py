"""Looks at the dumps that lie on the volume: can each be read, and is it whole? May hang; see `patience`."""

from __future__ import annotations

from collections.abc import Iterator

from dumpagent.doctor.finding import Finding, Result
from dumpagent.dumps.model import DumpFile, State, Verdict
from dumpagent.dumps.recognise import FileRules, Recogniser
from dumpagent.observe.left_alone import CORE_HINT
from dumpagent.upload.volume.judge import CompletenessJudge
from dumpagent.upload.volume.scan import scan

_MOST = 20  # the newest; each costs some milliseconds
_FRESH_S = 86400.0  # what was cut longer ago is known, and fails nothing any more


def dumps(
    root: str, state_dir: str, *, quiet_s: float, now: float, rules: FileRules | None = None
) -> Iterator[Finding]:
    """Name what cannot be looked at, what is left alone, and dumps that were cut."""
    found = scan(root, skip=frozenset({state_dir}), recogniser=Recogniser(rules))
    unreadable = dict(found.unreadable)
    judge = CompletenessJudge(quiet_s=quiet_s)
    judged: list[tuple[Verdict, DumpFile]] = []
    for dump in found.dumps[-_MOST:]:
        try:
            judged.append((judge.judge(dump), dump))
        except FileNotFoundError:
            continue  # claimed or deleted meanwhile
        except OSError as error:
            unreadable[dump.relpath] = error.strerror or str(error)
    if unreadable:
        path, reason = next(iter(unreadable.items()))
        yield Finding(
            "dumps", Result.FAILED, f"{len(unreadable)} paths cannot be looked at, such as {path}: {reason}",
            "give the agent DAC_OVERRIDE; mend the file system",
        )  # fmt: skip
    if found.left_alone:
        file = found.left_alone[-1]
        yield Finding(
            "dumps", Result.WARNING, f"{len(found.left_alone)} core files are left alone, such as {file.relpath}", CORE_HINT
        )  # fmt: skip
    cut = [(verdict, dump) for verdict, dump in judged if verdict.state is State.TRUNCATED]
    if cut:
        verdict, dump = cut[-1]
        fresh = now - dump.mtime < _FRESH_S
        yield Finding(
            "dumps", Result.FAILED if fresh else Result.WARNING,
            f"{len(cut)} of the newest {len(judged)} are truncated, such as {dump.relpath}: {verdict.reason}",
            "give JVMs time to write (liveness probe, grace period) and the volume room",
        )  # fmt: skip
    elif not unreadable:
        seen = f"{len(found.dumps)} on the volume, none of the newest {len(judged)} truncated"
        yield Finding("dumps", Result.OK, seen if found.dumps else "none on the volume")
