"""How far back logs and events are wanted, as people and `oc adm must-gather` write it."""

from __future__ import annotations

import datetime as dt
import re

from dumpagent.errors import DumpagentError

DAY_S = 86400.0
# Source: Go, time.ParseDuration, in which `oc adm must-gather --since` gives 2h as 2h0m0s; days are ours.
_STEP = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": DAY_S}


def since(duration: str, moment: str, *, now: float) -> float:
    """Give the time (seconds since the epoch) from which on logs are wanted: a day ago if neither is given.

    Raises DumpagentError for a text that is neither.
    """
    if duration and moment:
        raise DumpagentError("--since and --since-time cannot go together", hint="give one of them")
    if moment:
        try:
            found = dt.datetime.fromisoformat(moment)
            return (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).timestamp()
        except (ValueError, OverflowError) as error:
            raise DumpagentError(
                f"--since-time is {moment!r}; accepted: a time such as 2026-01-31T12:00:00Z"
            ) from error
    if not duration:
        return now - DAY_S
    steps = _STEP.findall(duration)
    if "".join(number + unit for number, unit in steps) != duration:
        raise DumpagentError(f"--since is {duration!r}; accepted: a duration such as 30m, 2h, 7d or 1h30m")
    return now - sum(float(number) * _SECONDS[unit] for number, unit in steps)
