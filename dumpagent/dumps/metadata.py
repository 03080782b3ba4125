"""What the metadata of a dump's object say, whichever version of the agent wrote them.

Source: the names are documented in docs/uploader.md, "Metadata".
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass


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
