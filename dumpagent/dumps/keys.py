"""The grammar of object keys: those that one dump may get, S3_PREFIX, and the keys of the agent's own objects."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator

from dumpagent.dumps.names import claimed_name, parts_of, stamp

# Source: S3 User Guide, "Naming Amazon S3 objects": at most 1,024 bytes of UTF-8.
# S3 takes 1024; OpenStack Swift keeps each part under <key>/<upload id>/<number>, which must fit into 1024 itself.
_KEY_BYTES = 960
# Stores that keep objects as files take 255 bytes between two slashes (SeaweedFS, rclone, MinIO); some put more behind.
_NAME_BYTES = 240
# Control characters cannot stand in the XML of a listing; a lone surrogate is a byte that was no UTF-8.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def candidates(
    *, prefix: str, original: str, dump_time_ms: int, node: str, crc32: int | None
) -> Iterator[str]:
    """Give the keys for a dump, best first; all follow from the dump alone, so that a lost state changes none.

    First its own path; then with its time; then with the node too; then, if `crc32` is known, with that, which only
    the very same dump can share.
    """
    directory, _, name = original.rpartition("/")
    yield _key(prefix, directory, name)
    stamped = claimed_name(name, _possible(dump_time_ms))
    yield _key(prefix, directory, stamped)
    on_node = _with(stamped, _safe(node) or "unknown-node")
    yield _key(prefix, directory, on_node)
    if crc32 is not None:
        yield _key(prefix, directory, _with(on_node, f"{crc32:08x}"))


def _possible(dump_time_ms: int) -> int:
    try:
        stamp(dump_time_ms)
    except ValueError:
        return 0
    return dump_time_ms


def _with(name: str, more: str) -> str:
    found = parts_of(name)
    return f"{found.stem}.{more}{found.suffix}{found.segment}"


def _key(prefix: str, directory: str, name: str) -> str:
    path = f"{directory}/{name}" if directory else name
    return _fitting(_escaped(below(prefix) + path))


def _escaped(text: str) -> str:
    """Give `text` with the characters that no key can hold as %XX of their bytes."""
    return _UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in os.fsencode(found[0])), text)


def _safe(node: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "-", node)[:63]


def _fitting(key: str) -> str:
    """Cut a key that is too long in its middle; a hash of the whole keeps it apart from others cut alike."""
    key = "/".join(_cut(name, _NAME_BYTES, _NAME_BYTES // 3) for name in key.split("/"))
    return _cut(key, _KEY_BYTES, 300)


def _cut(key: str, most_bytes: int, tail_bytes: int) -> str:
    encoded = key.encode()
    if len(encoded) <= most_bytes:
        return key
    mark = f"~{hashlib.sha256(encoded).hexdigest()[:16]}~".encode()
    tail = encoded[-tail_bytes:]
    head = encoded[: most_bytes - len(tail) - len(mark)]
    return head.decode(errors="ignore") + mark.decode() + tail.decode(errors="ignore")


# -- S3_PREFIX, and the agent's own objects ---------------------------------------------------------------------


def below(prefix: str) -> str:
    """Give what the keys below S3_PREFIX begin with: nothing, or the prefix with a slash."""
    clean = prefix.strip("/")
    return f"{clean}/" if clean else ""


def path_of(key: str, *, prefix: str) -> str:
    """Give the part of a key that stands below S3_PREFIX; a key that lies elsewhere as it is."""
    return key.removeprefix(below(prefix))


def own_key(prefix: str, name: str) -> str:
    """Give the key of an object of the agent's own, which is no dump: below `.dumpagent/`."""
    return f"{below(prefix)}.dumpagent/{name}"


def is_own_key(key: str) -> bool:
    """Say whether an object of the agent's own has this key, which readers do not show as a dump.

    `.dumpagent-doctor/` and `.dumpagent-trial` are of version 0.1.
    """
    return any(part in _OWN for part in key.split("/"))


_OWN = (".dumpagent", ".dumpagent-doctor", ".dumpagent-trial")


def trial_key(prefix: str) -> str:
    """Give the key under which agents try out what a store does."""
    return own_key(prefix, "trial")
