"""The words of the message about a stored dump: what a person asks first, and what to run next."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dumpagent.dumps.owner import Owner, owner_of
from dumpagent.dumps.text import size_text
from dumpagent.notify.commands import StoreAddress, fetch_command, inspect_command
from dumpagent.observe.events.dumps import DumpUploaded
from dumpagent.observe.log import printable

_STACK_LINES = 5
# Frames of these packages do not tell whose code it was. Source: OpenJDK's modules, java.base to jdk.zipfs.
_JDK = re.compile(r"(java|javax|jdk|sun|com\.sun)\.")


@dataclass(frozen=True, slots=True)
class Sender:
    """Who tells: the node and its cluster ("" if it has no name), where dumps lie there and where they go."""

    node: str
    cluster: str
    root: str
    address: StoreAddress


def own_frames(stack: Sequence[str], most: int = _STACK_LINES) -> list[str]:
    """Give the frame that failed and the application's own behind it, `...` for what is left out between them."""
    shown: list[str] = []
    skipped = False
    for number, frame in enumerate(stack):
        if number and _JDK.match(frame):
            skipped = True
            continue
        if len(shown) >= most:
            return [*shown, "..."]
        if skipped:
            shown.append("...")
        skipped = False
        shown.append(frame)
    if skipped:
        shown.append("...")
    return shown


def dump_message(dump: DumpUploaded, sender: Sender) -> tuple[str, dict[str, Any]]:
    """Give the text for a person, and the facts for a program."""
    dump = dump.with_values(**{name: printable(value) for name, value in dump.fields().items()})
    path = dump.path.removeprefix(sender.root + "/")
    owner = owner_of(path)
    application = _named(owner) or path.rpartition("/")[0] or path
    frames = own_frames(dump.oom_stack or ())
    commands = [inspect_command(dump.key, sender.address), fetch_command(dump.key, sender.address)]
    lines = [_headline(dump, application, sender), *(_frame(frame) for frame in frames)]
    if owner.pod:
        lines.append(f"pod {owner.namespace}/{owner.pod}" if owner.namespace else f"pod {owner.pod}")
    lines.append(f"bucket {sender.address}")
    # As it stands, between fences: Slack and its like would take _ and * for markup.
    lines += [f"```\n{command}\n```" for command in commands]
    facts = {
        "event": "dump_stored", "application": application, "namespace": owner.namespace, "workload": owner.workload,
        "pod": owner.pod, "node": sender.node, "cluster": sender.cluster or None, "path": path, "key": dump.key,
        "bucket": sender.address.bucket, "prefix": sender.address.prefix or None,
        "endpoint": sender.address.endpoint_url or None, "size_bytes": dump.size_bytes, "dump_time": dump.dump_time,
        "verdict": dump.verdict, "reason": dump.reason, "cause": dump.cause, "jvm": dump.jvm,
        "oom_thread": dump.oom_thread, "oom_stack": frames, "inspect_command": commands[0], "command": commands[1],
    }  # fmt: skip
    return "\n".join(lines), facts


def _headline(dump: DumpUploaded, application: str, sender: Sender) -> str:
    node = f"{sender.node}, cluster {sender.cluster}" if sender.cluster else sender.node
    when = dump.dump_time or "time unknown"
    line = f"Heap dump of {application} on {node}, {size_text(dump.size_bytes)}, {when}, {dump.verdict}"
    if dump.verdict == "truncated":
        line = f"TRUNCATED: {line} ({dump.reason})"
    line += {"oom": ", out of memory", "request": ", made on request"}.get(dump.cause or "", "")
    return line + (f" in thread {dump.oom_thread}" if dump.oom_thread else "")


def _frame(frame: str) -> str:
    return f"    {frame}" if frame == "..." else f"    at {frame}"


def _named(owner: Owner) -> str:
    name = owner.workload or owner.pod
    return f"{owner.namespace}/{name}" if owner.namespace and name else name or ""
