"""One dump that is to be uploaded: before its file is read, and after."""

from __future__ import annotations

from dataclasses import dataclass

from dumpagent.dumps import metadata, model
from dumpagent.dumps.fingerprint import Fingerprint
from dumpagent.dumps.model import DumpFile, Identity, Verdict
from dumpagent.dumps.names import original_name
from dumpagent.part_sizes import PartSizes


@dataclass(frozen=True, slots=True)
class Job:
    """One dump, or file beside one, that is to be uploaded, with all that is known of it before its file is read."""

    dump: DumpFile
    verdict: Verdict
    stored_as: str | None = None  # the path of a companion beside its dump

    @property
    def dump_time_ms(self) -> int:
        return model.dump_time_ms(self.dump, self.verdict.facts)

    @property
    def original(self) -> str:
        """Give the path that the JVM gave the dump, relative to the dump root."""
        if self.stored_as is not None:
            return self.stored_as
        directory, slash, name = self.dump.relpath.rpartition("/")
        return directory + slash + original_name(name, self.dump_time_ms)


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job whose file was read once.

    `packed`: it goes as gzip. `packable`: it could, so the store may hold it in that form.
    """

    job: Job
    fd: int
    fingerprint: Fingerprint
    contents: metadata.Contents
    sizes: PartSizes
    packed: bool
    packable: bool

    @property
    def identity(self) -> Identity:
        return self.job.dump.identity
