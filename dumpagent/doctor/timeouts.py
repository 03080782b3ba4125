"""Asks what may never answer: no check holds the doctor up, and none takes it along when it fails."""

from __future__ import annotations

import errno
import select
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dumpagent.doctor.finding import Finding, Result
from dumpagent.errors import DumpagentError
from dumpagent.kernel.children import reap
from dumpagent.kernel.forked import CRASHED, ForkedCall, Say

Look = Callable[[], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a check said; `hung`: it did not say all that it would have."""

    findings: list[Finding]
    hung: bool = False

    @property
    def failed(self) -> set[str]:
        """Give the names of what failed."""
        return {finding.name for finding in self.findings if finding.result is Result.FAILED}


def of_volume(name: str, look: Look, patience_s: float) -> Heard:
    """Give what `look` finds on the volume.

    In a child: who waits for a hung file system cannot even be killed, and would keep our own end waiting.
    """

    def work(say: Say) -> None:
        for finding in guarded(name, look).findings:
            say(finding.as_line())

    errand = ForkedCall.start(work, now=time.monotonic())
    poll = select.poll()
    poll.register(errand.fd, select.POLLIN)
    findings: list[Finding] = []
    while not errand.ended:
        left_s = errand.started + patience_s - time.monotonic()
        if left_s <= 0:
            errand.abandon()
            seen = f"no answer within {patience_s:g} s: the volume hangs, or is very slow"
            fix = "look at the storage behind the claim: its server, the network to it, `dmesg` on the node"
            return Heard([Finding(name, Result.FAILED, seen, fix)], hung=True)
        poll.poll(left_s * 1000)
        for line in errand.read():
            if CRASHED in line:
                findings.append(Finding(name, Result.FAILED, str(line[CRASHED]), "please report this"))
            else:
                findings.append(Finding.from_line(line))
    reap()
    return Heard(findings)


def of_store(name: str, look: Look, patience_s: float) -> Heard:
    """Give what `look` finds at the store; in a thread that is left alone when its time is over."""
    heard: list[Heard] = []
    thread = threading.Thread(target=lambda: heard.append(guarded(name, look)), daemon=True)
    thread.start()
    thread.join(patience_s)
    if heard:
        return heard[0]
    if not thread.is_alive():  # its trace stands on stderr
        return Heard([Finding(name, Result.FAILED, "a fault of the doctor's own", "please report this")])
    seen = f"no answer within {patience_s:g} s"
    fix = "look at the store's own health, and at the network between: requests hang"
    return Heard([Finding(name, Result.FAILED, seen, fix)], hung=True)


def guarded(name: str, look: Look) -> Heard:
    """Give what `look` finds; what it raises is its last finding."""
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except DumpagentError as error:
        findings.append(Finding(name, Result.FAILED, str(error), error.hint or "please report this"))
    except OSError as error:
        seen = f"{error.filename or ''} {error.strerror or error}".strip()
        findings.append(Finding(name, Result.FAILED, seen, _fix(error)))
    return Heard(findings)


def _fix(error: OSError) -> str:
    return {
        errno.ENOSPC: "the volume is full: delete or move dumps, enlarge the claim",
        errno.EDQUOT: "the quota is used up: raise it",
        errno.EROFS: "the volume is read-only: look at the storage behind the claim (after a file system error it must be mounted anew)",
        errno.ENOENT: "is the volume mounted? DUMP_ROOT must be the directory that the JVMs write to",
        errno.EACCES: "run as uid 0 with DAC_OVERRIDE; on OpenShift see the SELinux level of the manifests",
        errno.ENOTCONN: "the volume's file system is gone: restart what mounts it",
        errno.ESTALE: "the volume was exported anew: the manager has to mount it again",
        errno.EIO: "the storage behind the claim fails",
    }.get(error.errno or 0, "look at the storage behind the claim")  # fmt: skip
