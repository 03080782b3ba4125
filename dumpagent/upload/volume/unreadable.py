"""What to do about a dump, or a directory, that the agent may not read."""

from __future__ import annotations

NOT_READABLE = (
    "run the agent as uid 0 with the capability DAC_OVERRIDE: dumps are readable by their application alone"
)


def scan_hint(reason: str) -> str | None:
    """Give what to do about a path that a scan could not look at, None if nothing can be said."""
    if "exist" in reason:
        return "is the volume mounted? DUMP_ROOT must be the directory that the JVMs write to"
    return NOT_READABLE if "ermission" in reason else None
