"""A dump as the store tells of it: the object, and what its metadata say."""

from __future__ import annotations

import datetime as dt
import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

from dumpagent.store.protocol import StoredObject


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the dump's bytes must sum to: those stored, or those that they unpack to."""

    crc32: int
    size_bytes: int
    unpacked: bool


@dataclass(frozen=True, slots=True)
class StoredDump:
    """One object. `path` is its key below S3_PREFIX; `refused` says why its metadata cannot be known, if they cannot."""

    stored: StoredObject
    path: str
    refused: str | None = None

    @property
    def key(self) -> str:
        return self.stored.key

    @property
    def size_bytes(self) -> int:
        return self.stored.size_bytes

    @property
    def name(self) -> str:
        """Give the last part of the path: what the file is called."""
        return self.path.rpartition("/")[2]

    @property
    def labelled(self) -> bool:
        """Say whether the object carries the metadata of an agent; those of the first version do not tell a verdict."""
        return "verdict" in self._labels

    @property
    def application(self) -> str:
        """Give the directory below the dump root that the JVM wrote to."""
        original = self._labels.get("original-path", "")
        return (self.path if not original or original.startswith("...") else original).rpartition("/")[0]

    @property
    def node(self) -> str | None:
        return self._labels.get("node")

    @property
    def verdict(self) -> str | None:
        return self._labels.get("verdict")

    @property
    def cause(self) -> str | None:
        return self._labels.get("cause")

    @property
    def jvm(self) -> str | None:
        return self._labels.get("jvm")

    @property
    def dumped(self) -> float | None:
        """Give when the dump was made, seconds since the epoch; None if that is not told."""
        return _seconds(self._labels.get("dump-time"))

    @property
    def when(self) -> float:
        """Give when the dump was made, or, where that is not known, when it was stored."""
        return self.stored.modified if self.dumped is None else self.dumped

    @property
    def original_size_bytes(self) -> int | None:
        """Give the size of the uncompressed dump."""
        return _number(self._labels.get("original-size"), 10)

    @property
    def checksum(self) -> Checksum | None:
        """Give what a copy can be checked against; None if nobody left a checksum.

        The agent's own says what the JVM wrote; where the agent compressed it on the way, what it unpacks to.
        """
        crc32, size_bytes = _number(self._labels.get("crc32"), 16), self.original_size_bytes
        if crc32 is not None and size_bytes is not None:
            return Checksum(crc32, size_bytes, unpacked=size_bytes != self.size_bytes)
        if self.stored.crc32 is not None:
            return Checksum(self.stored.crc32, self.size_bytes, unpacked=False)
        return None

    @property
    def _labels(self) -> Mapping[str, str]:
        return self.stored.metadata or {}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dumps are asked for; an empty field asks for nothing.

    `part` stands somewhere in the path; `app` is the directory that it begins with; `node` may hold * and ?;
    `since` is seconds since the epoch.
    """

    part: str = ""
    app: str = ""
    node: str = ""
    since: float | None = None

    def by_listing(self, path: str, stored_at: float) -> bool:
        """Say whether the dump can be meant, as far as a listing tells.

        What was stored before `since` was dumped before it.
        """
        if self.since is not None and stored_at < self.since:
            return False
        app = self.app.strip("/")
        return self.part in path and (not app or path.startswith(app + "/"))

    def by_metadata(self, dump: StoredDump) -> bool:
        """Say whether the dump is meant; one whose metadata cannot be known may be, and is kept."""
        if dump.refused:
            return True
        if self.since is not None and dump.when < self.since:
            return False
        return not self.node or fnmatch.fnmatchcase(dump.node or "", self.node)


def below(prefix: str) -> str:
    """Give what the keys below S3_PREFIX begin with."""
    clean = prefix.strip("/")
    return f"{clean}/" if clean else ""


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
