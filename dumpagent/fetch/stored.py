"""A dump as the store tells of it: the object, and what its metadata say."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from dumpagent.dumps.companion import companion_folder, is_companion_path
from dumpagent.dumps.keys import below
from dumpagent.dumps.metadata import DumpMetadata, read_metadata
from dumpagent.dumps.owner import Owner, owner_of
from dumpagent.index.entry import IndexEntry, facts_in
from dumpagent.store.protocol import StoredObject

_OWN_FOLDERS = (".dumpagent/", ".dumpagent-trial")
REPORT_ENDINGS = (".report.json", ".report.html", ".analysis.json", ".analysis.html")


@dataclass(frozen=True, slots=True)
class Checksum:
    """What the dump's bytes must sum to: those stored, or those that they unpack to."""

    crc32: int
    size_bytes: int
    unpacked: bool


@dataclass(frozen=True, slots=True)
class StoredDump:
    """One object. `path` is its key below S3_PREFIX; `refused` says why its metadata cannot be known, if they cannot.

    `entry` is its entry in the index, where that is how it was found; `stored` then knows key and size alone.
    """

    stored: StoredObject
    path: str
    refused: str | None = None
    entry: IndexEntry | None = None

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
        return bool(self._facts.verdict)

    @property
    def application(self) -> str:
        """Give the directory below the dump root that the JVM wrote to."""
        return (self._facts.original_path or self.path).rpartition("/")[0]

    @property
    def node(self) -> str | None:
        return self._facts.node or None

    @property
    def cluster(self) -> str | None:
        return self._facts.cluster or None

    @property
    def owner(self) -> Owner:
        """Give the namespace, pod and workload of the application, each None if it is not known."""
        facts = self._facts
        if facts.namespace or facts.pod or facts.workload:
            return Owner(facts.namespace or None, facts.pod or None, facts.workload or None)
        return owner_of(facts.original_path or self.path)

    @property
    def verdict(self) -> str | None:
        return self._facts.verdict or None

    @property
    def cause(self) -> str | None:
        return self._facts.cause or None

    @property
    def jvm(self) -> str | None:
        return self._facts.jvm or None

    @property
    def dumped(self) -> float | None:
        """Give when the dump was made, seconds since the epoch; None if that is not told."""
        return self._facts.dumped

    @property
    def when(self) -> float:
        """Give when the dump was made, or, where that is not known, when it was stored."""
        return self.stored.modified if self.dumped is None else self.dumped

    @property
    def companion_folder(self) -> str | None:
        """Give the path below S3_PREFIX of the folder of the files beside the dump; None if its time is not known."""
        if self.dumped is None or self.dumped < 0:
            return None
        return companion_folder(self._facts.original_path or self.path, int(self.dumped * 1000))

    @property
    def original_size_bytes(self) -> int | None:
        """Give the size of the uncompressed dump."""
        return self._facts.original_size_bytes

    @property
    def checksum(self) -> Checksum | None:
        """Give what a copy can be checked against; None if nobody left a checksum.

        The agent's own says what the JVM wrote; where the agent compressed it on the way, what it unpacks to.
        """
        crc32, size_bytes = self._facts.crc32, self.original_size_bytes
        if crc32 is not None and size_bytes is not None:
            return Checksum(crc32, size_bytes, unpacked=size_bytes != self.size_bytes)
        if self.stored.crc32 is not None:
            return Checksum(self.stored.crc32, self.size_bytes, unpacked=False)
        return None

    @property
    def _facts(self) -> DumpMetadata:
        return read_metadata(self.stored.metadata) if self.entry is None else facts_in(self.entry)


def indexed(entry: IndexEntry, *, prefix: str = "") -> StoredDump:
    """Give the dump that an index entry is about, as far as the entry tells."""
    stored = StoredObject(below(prefix) + entry.path, entry.stored_bytes, etag="", modified=float(entry.when))
    return StoredDump(stored, entry.path, entry=entry)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dumps are asked for; an empty field asks for nothing.

    `part` stands somewhere in the path; `app` is the directory that it begins with; `since` is seconds since the
    epoch. `node`, `namespace`, `workload` (or `namespace/workload`), `pod`, `cluster`, `verdict` and `cause` may hold * and ?.
    """

    part: str = ""
    app: str = ""
    node: str = ""
    since: float | None = None
    namespace: str = ""
    workload: str = ""
    pod: str = ""
    verdict: str = ""
    cause: str = ""
    cluster: str = ""

    @property
    def by_metadata_alone(self) -> bool:
        """Say whether anything is asked that the listing of a bucket without an index does not tell."""
        return bool(self.node or self.verdict or self.cause or self.cluster)

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
        if self.since is not None and not dump.refused and dump.when < self.since:
            return False
        owner = dump.owner
        namespace, _, workload = self.workload.rpartition("/")
        asked = [
            (self.namespace, owner.namespace),
            (namespace, owner.namespace),
            (workload, owner.workload),
            (self.pod, owner.pod),
            (self.node, dump.node),
            (self.verdict, dump.verdict),
            (self.cause, dump.cause),
            (self.cluster, dump.cluster),
        ]
        return all(
            not pattern or (told is None and bool(dump.refused)) or fnmatch.fnmatchcase(told or "", pattern)
            for pattern, told in asked
        )


def is_dump_path(path: str) -> bool:
    """Say whether an object with this path below S3_PREFIX can be a dump: no object of the agent's own, no report, no companion."""
    return (
        not path.startswith(_OWN_FOLDERS)
        and not path.endswith(REPORT_ENDINGS)
        and not is_companion_path(path)
    )
