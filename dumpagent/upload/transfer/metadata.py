"""The metadata that goes with a dump into the store: who wrote it, when, where, and how to check it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from dumpagent import __version__
from dumpagent.dumps.model import Cause, DumpFile, State, Verdict, dump_time_ms
from dumpagent.dumps.owner import owner_of
from dumpagent.dumps.text import iso_time
from dumpagent.settings import Place

# Source: S3 User Guide, "User-defined object metadata": 2 KB over all names and values. Ours leave room for more names.
# OpenStack Swift refuses a value of more than 256.
_VALUE_CHARACTERS = 256


@dataclass(frozen=True, slots=True)
class Contents:
    """Which bytes a dump is: length and CRC32 of the uncompressed file; and whose it is, where that is known.

    Length and CRC32 show damage, not authorship: any content can be given those of another's dump.
    """

    size_bytes: int
    crc32: int
    uid: int | None = None


def describe(
    dump: DumpFile, verdict: Verdict, contents: Contents, *, original: str, place: Place, now: float
) -> dict[str, str]:
    """Give the object's metadata: ASCII, values cut and escaped, so that any file name is safe in a header."""
    facts, owner = verdict.facts, owner_of(original)
    known = (State.COMPLETE, State.TRUNCATED)
    told = {
        "node": place.node_name,
        "cluster": place.cluster_name,
        "upload-time": iso_time(now) or "unknown",
        "dump-time": iso_time(dump_time_ms(dump, facts) / 1000) or "unknown",
        "verdict": verdict.state.value if verdict.state in known else State.UNKNOWN.value,
        "original-size": str(contents.size_bytes),
        "crc32": f"{contents.crc32:08x}",
        "jvm": (facts.jvm if facts else None) or "",
        "cause": (facts.cause if facts else Cause.UNKNOWN).value,
        "namespace": owner.namespace or "",
        "pod": owner.pod or "",
        "workload": owner.workload or "",
        "uid": str(dump.uid),
        "agent-pod": place.pod_name,
        "agent-namespace": place.pod_namespace,
        "agent-version": __version__,
    }
    kept = {name: _ascii(value)[:_VALUE_CHARACTERS] for name, value in told.items() if value}
    kept["original-path"] = _cut_path(_ascii(original))
    return kept


def holds(told: Mapping[str, str] | None, contents: Contents) -> bool:
    """Say whether an object with these metadata was made from these contents, of the same owner.

    Objects of version 0.1.0 name no owner and count as the same.
    """
    if told is None or not told.items() >= proof_of(contents).items():
        return False
    return contents.uid is None or told.get("uid") in (None, str(contents.uid))


def proof_of(contents: Contents) -> dict[str, str]:
    """Give the metadata that tell one dump from any other."""
    return {"crc32": f"{contents.crc32:08x}", "original-size": str(contents.size_bytes)}


def is_ours(told: Mapping[str, str] | None) -> bool:
    """Say whether these are the metadata of a dump, whichever."""
    return bool(told and ("crc32" in told or "node" in told))


def is_of_node(told: Mapping[str, str] | None, node: str) -> bool:
    """Say whether an object with these metadata was made by the agent of this node."""
    return bool(node and told and told.get("node") == _ascii(node)[:_VALUE_CHARACTERS])


def _ascii(text: str) -> str:
    """Give `text` as printable ASCII; every other byte, and the escape itself, as %XX."""
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte != 37 else f"%{byte:02X}" for byte in os.fsencode(text)
    ).strip()


def _cut_path(path: str) -> str:
    """Keep the end of a path that is too long: that is where the dump's own name is."""
    return path if len(path) <= _VALUE_CHARACTERS else "..." + path[3 - _VALUE_CHARACTERS :]
