"""What a dump tells before its heap is read."""

from __future__ import annotations

from typing import Any

from dumpagent.analyze.analysis import Subject
from dumpagent.hprof.look import Look
from dumpagent.hprof.source import ByteSource
from dumpagent.hprof.walk import Shape


def known_of(source: ByteSource, name: str, size_bytes: int) -> Subject:
    """Give the subject of an analysis: name, JVM, cause, dying thread, damage. Raises OSError."""
    look = Look(source)
    walked = look.advance(size_bytes, budget_bytes=None)
    facts = look.facts()
    found: dict[str, Any] = {}
    if walked.shape in (Shape.OPEN, Shape.CUT, Shape.BROKEN):
        found["damage"] = walked.reason
    if facts:
        found |= {"jvm": facts.jvm, "cause": facts.cause.value}
        if look.head_seen:
            found |= {"oom_stack": look.oom_stack(), "oom_thread": look.oom_thread()}
    return Subject(name=name, size_bytes=size_bytes, **found)
