"""The metadata that go with a dump into the store: who wrote it, when, where, how to check it.

Source: the names are documented in docs/uploader.md, "Metadata".
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from dumpagent import __version__
from dumpagent.dumps.model import Cause, DumpFile, State, Verdict, dump_time_ms
from dumpagent.dumps.owner import owner_of
from dumpagent.dumps.text import iso_time

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


class Writer(Protocol):
    """Which agent writes the metadata: its node, cluster, pod and namespace."""

    @property
    def node_name(self) -> str: ...
    @property
    def cluster_name(self) -> str: ...
    @property
    def pod_name(self) -> str: ...
    @property
    def pod_namespace(self) -> str: ...


def describe(
    dump: DumpFile, verdict: Verdict, contents: Contents, *, original: str, place: Writer, now: float
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


# -- reading them, whichever version of the agent wrote them ----------------------------------------------------


@dataclass(frozen=True, slots=True)
class DumpMetadata:
    """The facts of one stored dump; what is not known is empty or None.

    `namespace`, `pod`, `workload` are the application's. `dumped` and `uploaded` are seconds
    since the epoch, `original_size_bytes`
    and `crc32` are of the uncompressed dump. `original_path` is relative to the dump root; None if it was cut.
    """

    node: str = ""
    cluster: str = ""
    namespace: str = ""
    pod: str = ""
    workload: str = ""
    uid: int | None = None
    dumped: float | None = None
    uploaded: float | None = None
    verdict: str = ""
    cause: str = ""
    jvm: str = ""
    original_path: str | None = None
    original_size_bytes: int | None = None
    crc32: int | None = None
    agent_version: str = ""


def read_metadata(metadata: Mapping[str, str] | None) -> DumpMetadata:
    """Read an object's metadata. Objects of agents before 0.2 carry the agent's own pod and namespace: left out."""
    told = metadata or {}
    version = told.get("agent-version", "")
    path = told.get("original-path", "")
    of_application = _is_since_0_2(version)
    return DumpMetadata(
        node=told.get("node", ""),
        cluster=told.get("cluster", ""),
        namespace=told.get("namespace", "") if of_application else "",
        pod=told.get("pod", "") if of_application else "",
        workload=told.get("workload", "") if of_application else "",
        uid=_number(told.get("uid"), 10),
        dumped=_seconds(told.get("dump-time")),
        uploaded=_seconds(told.get("upload-time")),
        verdict=told.get("verdict", ""),
        cause=told.get("cause", ""),
        jvm=told.get("jvm", ""),
        original_path=path if path and not path.startswith("...") else None,
        original_size_bytes=_number(told.get("original-size"), 10),
        crc32=_number(told.get("crc32"), 16),
        agent_version=version,
    )


def _is_since_0_2(version: str) -> bool:
    numbers = version.split(".")
    try:
        return (int(numbers[0]), int(numbers[1])) >= (0, 2)
    except (ValueError, IndexError):
        return False


def _seconds(text: str | None) -> float | None:
    try:
        return dt.datetime.strptime(text or "", "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=dt.UTC).timestamp()
    except ValueError:
        return None


def _number(text: str | None, base: int) -> int | None:
    try:
        number = int(text or "", base)
    except ValueError:
        return None
    return number if number >= 0 else None


# The metadata of a dump, whose names some stores change: Azure behind S3Proxy gives `_` for `-`.
_NAMES = {
    "".join(letter for letter in name if letter.isalnum()): name
    for name in (
        "upload-time",
        "dump-time",
        "original-size",
        "original-path",
        "agent-version",
        "agent-pod",
        "agent-namespace",
    )
}


def with_known_names(metadata: Mapping[str, str]) -> dict[str, str]:
    """Give an object's metadata under the names that they were given, in lower case."""
    return {_name_of(name): value for name, value in metadata.items()}


def _name_of(name: str) -> str:
    lower = name.lower()
    return _NAMES.get("".join(letter for letter in lower if letter.isalnum()), lower)
