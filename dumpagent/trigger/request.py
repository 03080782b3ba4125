"""The order of a request: look at the JVM, say what its dump will cost, ask for it; each question in a child of its own."""

from __future__ import annotations

import select
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dumpagent.dumps.text import size_text
from dumpagent.errors import Refused, Unreachable
from dumpagent.kernel.children import reap
from dumpagent.kernel.forked import CRASHED, ForkedCall, Say
from dumpagent.trigger.attach import Answer, Attachment, become, open_root
from dumpagent.trigger.heap import Estimate, estimate, used_bytes
from dumpagent.trigger.place import PodDirectory, open_dump_root, room_in
from dumpagent.trigger.processes import HeldProcess, Jvm, jvms

ATTACH_S = 15.0
_LOOK_S = 30.0
_CREATED = "Heap dump file created"  # Source: JDK heapDumper.cpp, HeapDumper::dump; in every version
_REFUSED, _UNREACHABLE, _DONE = "refused", "unreachable", "done"


@dataclass(frozen=True, slots=True)
class Prospect:
    """What a dump of this JVM would cost. `told`: the JVM itself said how much of its heap is used."""

    version: str
    estimate: Estimate
    told: bool
    free_bytes: int


def find(pod_uid: str, *, seconds: float = _LOOK_S) -> list[Jvm]:
    """Give the JVMs of a pod. Raises Refused where this container may not look, Unreachable when a process hangs."""

    def work(say: Say) -> None:
        for jvm in jvms(pod_uid):
            say({name: getattr(jvm, name) for name in Jvm.__slots__})

    return [Jvm(**line) for line in _said(work, seconds)]  # type: ignore[arg-type]  # our own child's words


def look(process: HeldProcess, directory: PodDirectory, *, attach_s: float = ATTACH_S) -> Prospect:
    """Ask the JVM how large its heap is, and the volume what room it has. Raises Refused, Unreachable."""

    def work(say: Say) -> None:
        root, dump_root = open_root(process), open_dump_root(directory)
        become(process.jvm.uid, process.jvm.gid)
        space = room_in(directory, dump_root, root, process.jvm.uid)
        attachment = Attachment(process, root, until=time.monotonic() + attach_s)
        until = time.monotonic() + 2 * attach_s
        version = attachment.ask("jcmd", "VM.version", until=until)
        heap = attachment.ask("jcmd", "GC.heap_info", until=until)
        say({"version": version.text, "heap": heap.text, "free": space.free_bytes})

    (said,) = _said(work, 3 * attach_s)
    told = used_bytes(str(said["heap"]))
    used = process.jvm.resident_bytes if told is None else told
    version = " ".join(str(said["version"]).split())[:120]
    return Prospect(version, estimate(used), told is not None, int(str(said["free"])))


def require_room(prospect: Prospect) -> None:
    """Raise Refused if the volume has no room for two such dumps."""
    needed, free = prospect.estimate.needed_bytes, prospect.free_bytes
    if free < needed:
        raise Refused(
            f"the volume has {size_text(free)} free, and two such dumps may take {size_text(needed)}",
            hint="wait until stored dumps have left the volume (LOCAL_KEEP), or enlarge it",
        )


def ask_for_dump(
    process: HeldProcess, path: str, *, live: bool, seconds: float, attach_s: float = ATTACH_S
) -> str:
    """Ask for the dump, wait for its end, and give what the JVM said of it. Raises Refused, Unreachable.

    After `seconds` nobody waits any longer; the JVM goes on.
    """

    def work(say: Say) -> None:
        root = open_root(process)
        become(process.jvm.uid, process.jvm.gid)
        attachment = Attachment(process, root, until=time.monotonic() + attach_s)
        answer = attachment.ask(
            "dumpheap", path, "-live" if live else "-all", until=time.monotonic() + attach_s + seconds
        )
        say({"code": answer.code, "text": answer.text})

    (said,) = _said(work, seconds + 2 * attach_s)
    answer = Answer(int(str(said["code"])), str(said["text"]))
    if answer.code != 0 or _CREATED not in answer.text:
        raise Refused(
            f"the JVM did not write the dump: {answer.text[:400] or f'its answer was {answer.code}'}",
            hint="what it could not do stands in its words",
        )
    return answer.text


def _said(work: Callable[[Say], None], seconds: float) -> list[Mapping[str, object]]:
    """Do `work` in a child that ends itself after `seconds`, whatever it hangs in; give what it said."""

    def bounded(say: Say) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)  # no signal of ours: by then it may have another user
        try:
            work(say)
            say({_DONE: True})
        except Refused as error:
            say({_REFUSED: str(error), "hint": error.hint})
        except Unreachable as error:
            say({_UNREACHABLE: str(error), "hint": error.hint})

    call = ForkedCall.start(bounded, now=time.monotonic())
    said: list[Mapping[str, object]] = []
    while not call.ended and (left := call.started + seconds + 1 - time.monotonic()) > 0:
        select.select([call.fd], [], [], left)
        said += call.read()
    try:
        call.abandon()
    except PermissionError:
        pass  # it has another user, and ends itself
    reap()
    for line in said:
        if _REFUSED in line:
            raise Refused(str(line[_REFUSED]), hint=str(line["hint"]))
        if _UNREACHABLE in line:
            raise Unreachable(str(line[_UNREACHABLE]), hint=str(line["hint"]))
        if CRASHED in line:
            raise Unreachable(f"the JVM could not be asked: {line[CRASHED]}", hint="try again")
    if not said or _DONE not in said[-1]:
        raise Unreachable(f"no answer within {seconds:g} s", hint="the JVM or its file system hangs")
    return said[:-1]
