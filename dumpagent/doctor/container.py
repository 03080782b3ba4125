"""Looks at the container: does its daemon live, and what may it do?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from dumpagent import check
from dumpagent.doctor.finding import Finding, Result

# Source: <linux/capability.h>
_CAPABILITIES = {
    "DAC_OVERRIDE": (
        1,
        "read dumps, which only their application may read, and rename and delete them (CLAIM, LOCAL_KEEP)",
    ),
    "LEASE": (28, "ask the kernel whether a JVM still writes"),
}


def daemon(runtime_dir: str) -> Iterator[Finding]:
    """Say whether the daemon of this container lives; that none was ever here is no failure of its own."""
    if killed := _killed(runtime_dir):
        yield Finding(
            "daemon", Result.FAILED, killed,
            "see the pod's last state (OOMKilled, liveness) and `kubectl logs -p`; it goes on where it was cut when it starts again",
        )  # fmt: skip
    elif why := check.problem("live", runtime_dir):
        yield Finding(
            "daemon", Result.WARNING, why, "is this its container? see `kubectl logs -p` for its end"
        )
    else:
        yield Finding("daemon", Result.OK, "its loop turns")


def _killed(runtime_dir: str) -> str:
    """Say so if the daemon that left the heartbeat is gone: its last word is believed for a while."""
    for mode in ("mount", "upload"):
        try:
            with open(f"{runtime_dir}/{mode}.heartbeat", encoding="utf-8") as file:
                pid = next(line.split()[1] for line in file if line.startswith("pid "))
            os.stat(f"/proc/{pid}")
        except FileNotFoundError as error:
            if str(error.filename).startswith("/proc/"):
                return f"process {pid}, which left the last heartbeat, was killed"
        except (OSError, StopIteration, IndexError):
            continue
    return ""


def rights() -> Iterator[Finding]:
    """Say which capabilities are missing that a feature needs."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    missing = [f"{name} (to {why})" for name, (bit, why) in _CAPABILITIES.items() if not effective >> bit & 1]
    if missing:
        yield Finding(
            "rights", Result.FAILED, "missing: " + "; ".join(missing),
            "run as uid 0 and add these capabilities to securityContext.capabilities.add; see docs/security.md",
        )  # fmt: skip
    else:
        yield Finding(
            "rights", Result.OK, "other users' 0600 files can be read, renamed and asked for writers"
        )
