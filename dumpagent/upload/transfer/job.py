"""One dump on its way to the store: the open file, what is in it, and in which form it goes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dumpagent.dumps import model
from dumpagent.dumps.model import DumpFile, Verdict
from dumpagent.dumps.names import original_name
from dumpagent.upload.transfer import metadata
from dumpagent.upload.transfer.fingerprint import Fingerprint, take_fingerprint
from dumpagent.upload.transfer.gzip_parts import can_pack


@dataclass(frozen=True, slots=True)
class Job:
    """One dump that is to be brought, with all that is known of it before the store is asked."""

    dump: DumpFile
    verdict: Verdict

    @property
    def dump_time_ms(self) -> int:
        return model.dump_time_ms(self.dump, self.verdict.facts)

    @property
    def original(self) -> str:
        """Give the path that the JVM gave the dump, relative to the dump root."""
        directory, slash, name = self.dump.relpath.rpartition("/")
        return directory + slash + original_name(name, self.dump_time_ms)


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """An errand whose file was read once.

    `part_bytes`: the smallest parts it may go in; `large_part_bytes`: those in which it is cheapest to send.
    `packed`: it goes as gzip. `packable`: it could, so the store may hold it in that form.
    """

    errand: Job
    fd: int
    fingerprint: Fingerprint
    contents: metadata.Contents
    part_bytes: int
    large_part_bytes: int
    packed: bool
    packable: bool


def prepare(
    errand: Job,
    fd: int,
    *,
    part_bytes: int,
    large_part_bytes: int,
    block_bytes: int,
    packed_most_bytes: int,
    stopped: Callable[[], bool],
) -> PreparedJob:
    """Read the whole dump once and give what there is to know before it goes.

    Dumps of up to `packed_most_bytes` go as gzip, if they can. Raises Stopped, DumpChanged, OSError.
    """
    size_bytes = errand.dump.size_bytes
    packable = can_pack(fd)
    fingerprint = take_fingerprint(fd, size_bytes, block_bytes=block_bytes, stopped=stopped)
    return PreparedJob(
        errand,
        fd,
        fingerprint,
        metadata.Contents(size_bytes, fingerprint.crc32),
        part_bytes,
        large_part_bytes,
        packed=packable and size_bytes <= packed_most_bytes,
        packable=packable,
    )
