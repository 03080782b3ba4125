"""One entry of the index: the facts of a stored dump, written as an object key and read from it.

    <S3_PREFIX>/.dumpagent/index/2026-11-28/120301Z!co!1a2b3c!9z!8d47de7e!worker-1!shop!cart-7d4f-x2k9q!cart!!<path>

The parts after the time: verdict and cause (a letter each), stored and original size (hexadecimal), CRC32, node,
namespace, pod, workload, cluster, and the dump's key below S3_PREFIX. A listing therefore needs no request per dump.
A dump whose facts do not fit into a key has an entry that ends in `!*<hash>`; its body, which every entry has, holds
the same facts as JSON.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import re
from dataclasses import dataclass

from dumpagent.dumps.keys import below
from dumpagent.dumps.metadata import DumpMetadata

_VERSION = 1
# Source: S3 User Guide, "Object key naming": 1,024 bytes. Stores that keep objects as files take 255 bytes between two
# slashes (MinIO, rclone); both with room for a longer prefix.
_KEY_BYTES, _NAME_BYTES = 900, 240
_FOLDER = ".dumpagent/index/"
_SPECIAL = re.compile(r"[^A-Za-z0-9._-]")
_ESCAPED = re.compile(r"\(([0-9a-f]{2}(?:[0-9a-f]{2})*)\)")
_VERDICTS = {"complete": "c", "truncated": "t", "unknown": "u", "": "-"}
_CAUSES = {"oom": "o", "request": "r", "unknown": "u", "": "-"}
_VERDICT_OF = {letter: verdict for verdict, letter in _VERDICTS.items()}
_CAUSE_OF = {letter: cause for cause, letter in _CAUSES.items()}
_PARTS = 11
_CLOCKS_APART_S = 3600


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """What a listing shows of one dump. `path` is its key below S3_PREFIX; `when` is its dump time, or the time at
    which it was stored, in whole seconds since the epoch; `stored_bytes` is the object's size.
    """

    path: str
    when: int
    stored_bytes: int
    original_bytes: int | None
    crc32: int | None
    verdict: str
    cause: str
    node: str
    namespace: str
    pod: str
    workload: str
    cluster: str


def entry_of(path: str, stored_bytes: int, facts: DumpMetadata, *, stored_at: float) -> IndexEntry:
    """Give the entry of a stored dump from its object's metadata; `stored_at` is by the store's clock.

    A dump whose JVM had a clock that was ahead stands under the time of its upload, where a search by time finds it.
    """
    uploaded = stored_at if facts.uploaded is None else facts.uploaded
    when = uploaded if facts.dumped is None or facts.dumped > uploaded + _CLOCKS_APART_S else facts.dumped
    return IndexEntry(
        path=path,
        when=int(when),
        stored_bytes=stored_bytes,
        original_bytes=facts.original_size_bytes,
        crc32=facts.crc32,
        verdict=facts.verdict if facts.verdict in _VERDICTS else "unknown",
        cause=facts.cause if facts.cause in _CAUSES else "unknown",
        node=facts.node,
        namespace=facts.namespace,
        pod=facts.pod,
        workload=facts.workload,
        cluster=facts.cluster,
    )


def facts_in(entry: IndexEntry) -> DumpMetadata:
    """Give the facts that the entry has, as the object's metadata would tell them."""
    return DumpMetadata(
        node=entry.node,
        cluster=entry.cluster,
        namespace=entry.namespace,
        pod=entry.pod,
        workload=entry.workload,
        dumped=float(entry.when),
        verdict=entry.verdict,
        cause=entry.cause,
        original_size_bytes=entry.original_bytes,
        crc32=entry.crc32,
    )


def index_prefix(prefix: str, day: str = "") -> str:
    """Give what the keys of all entries below S3_PREFIX begin with, or those of one day (`2026-11-28`)."""
    return below(prefix) + _FOLDER + (f"{day}/" if day else "")


def day_of(when: float) -> str:
    """Give the day in UTC under which the entry of a dump of that time stands."""
    return dt.datetime.fromtimestamp(when, dt.UTC).strftime("%Y-%m-%d")


def key_of(entry: IndexEntry, *, prefix: str = "") -> str:
    """Give the entry's key. The same facts give the same key."""
    facts = [
        dt.datetime.fromtimestamp(entry.when, dt.UTC).strftime("%H%M%SZ"),
        _VERDICTS.get(entry.verdict, "u") + _CAUSES.get(entry.cause, "u"),
        f"{entry.stored_bytes:x}",
        "" if entry.original_bytes is None else f"{entry.original_bytes:x}",
        "" if entry.crc32 is None else f"{entry.crc32:08x}",
        *map(_escaped, (entry.node, entry.namespace, entry.pod, entry.workload, entry.cluster)),
    ]
    folder = index_prefix(prefix, day_of(entry.when))
    whole = "!".join([*facts, _escaped_path(entry.path)])
    if (
        len(folder.encode(errors="surrogateescape")) + len(whole) <= _KEY_BYTES
        and max(map(len, whole.split("/"))) <= _NAME_BYTES
    ):
        return folder + whole
    content = hashlib.sha256(to_json(entry)).hexdigest()[:32]
    return folder + "!".join([facts[0], facts[1], *[""] * (_PARTS - 3), f"*{content}"])


def entry_in(key: str, *, prefix: str = "") -> IndexEntry | None:
    """Read an entry from its key; None if its body must be read (`needs_body`), or it is no entry."""
    day, _, rest = key.removeprefix(index_prefix(prefix)).partition("/")
    parts = rest.split("!", _PARTS - 1)
    if len(parts) != _PARTS or parts[-1].startswith("*"):
        return None
    time, kind, stored, original, crc32, node, namespace, pod, workload, cluster, path = parts
    try:
        when = _when(day, time)
        return IndexEntry(
            path=_plain(path),
            when=when,
            stored_bytes=int(stored, 16),
            original_bytes=int(original, 16) if original else None,
            crc32=int(crc32, 16) if crc32 else None,
            verdict=_VERDICT_OF[kind[0]],
            cause=_CAUSE_OF[kind[1]],
            node=_plain(node),
            namespace=_plain(namespace),
            pod=_plain(pod),
            workload=_plain(workload),
            cluster=_plain(cluster),
        )
    except (ValueError, KeyError, IndexError):
        return None


def needs_body(key: str) -> bool:
    """Say whether this is the key of an entry whose facts stand in its body alone."""
    return key.rpartition("!")[2].startswith("*")


def to_json(entry: IndexEntry) -> bytes:
    """Give the entry's body."""
    return json.dumps({"version": _VERSION, **dataclasses.asdict(entry)}, sort_keys=True).encode()


def from_json(body: bytes) -> IndexEntry | None:
    """Read an entry from its body; None if it is none of ours."""
    try:
        values = json.loads(body)
        if values.pop("version") != _VERSION:
            return None
        entry = IndexEntry(**values)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    numbers = (entry.when, entry.stored_bytes, entry.original_bytes or 0, entry.crc32 or 0)
    texts = (
        entry.path,
        entry.verdict,
        entry.cause,
        entry.node,
        entry.namespace,
        entry.pod,
        entry.workload,
        entry.cluster,
    )
    return (
        entry
        if all(type(n) is int and n >= 0 for n in numbers) and all(type(t) is str for t in texts)
        else None
    )


def _when(day: str, time: str) -> int:
    # strptime costs twenty times as much, and a bucket can hold 200,000 entries.
    if len(day) != 10 or len(time) != 7 or time[6] != "Z":
        raise ValueError(day)
    days = dt.date(int(day[:4]), int(day[5:7]), int(day[8:])).toordinal() - _EPOCH_DAY
    return days * 86400 + int(time[:2]) * 3600 + int(time[2:4]) * 60 + int(time[4:6])


_EPOCH_DAY = dt.date(1970, 1, 1).toordinal()


def _escaped_path(path: str) -> str:
    # Empty and dotted names between slashes are folded by stores that keep objects as files.
    return "/".join(
        "(2e)" * len(name) if name in (".", "..") else _escaped(name) or "()" for name in path.split("/")
    )


def _escaped(text: str) -> str:
    return _SPECIAL.sub(lambda found: f"({found[0].encode('utf-8', 'surrogateescape').hex()})", text)


def _plain(text: str) -> str:
    if "(" not in text:
        return text
    plain = text.replace("()", "")  # an empty name between two slashes
    return _ESCAPED.sub(lambda found: bytes.fromhex(found[1]).decode("utf-8", "surrogateescape"), plain)
