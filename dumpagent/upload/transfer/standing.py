"""Which keys a dump may get, and what stands under one: nothing, the dump itself, its mark, or something else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from dumpagent.errors import Refused, Unreachable
from dumpagent.hprof import chunked
from dumpagent.store.protocol import LookRefused, Store, StoredObject
from dumpagent.upload.transfer import metadata
from dumpagent.upload.transfer.fingerprint import read_span
from dumpagent.upload.transfer.job import Job, PreparedJob
from dumpagent.upload.transfer.keys import candidates

_TAIL_BYTES = 512 << 10  # more than any last gzip member has


class Lookup:
    """Asks `store` about keys; `round_trip_s` is how long it took to answer last."""

    def __init__(
        self, store: Store, *, prefix: str, node: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.round_trip_s = 0.0
        self._store = store
        self._prefix = prefix
        self._node = node
        self._monotonic = monotonic

    def keys(self, load: PreparedJob) -> Iterator[tuple[str, str | None]]:
        """Give the keys that the dump may get, each with the one it would have in the other form, if there is one."""
        plain = self._candidates(load, load.errand.original)
        if not load.packable:
            return ((key, None) for key in plain)
        packed = self._candidates(load, f"{load.errand.original}.gz")
        return zip(packed, plain, strict=True) if load.packed else zip(plain, packed, strict=True)

    def look(self, key: str) -> StoredObject | None:
        """Look at the key; where the store does not let us, the conditional write has to find out."""
        began = self._monotonic()
        try:
            return self._store.look(key)
        except LookRefused:
            return None
        finally:
            # The last one before the upload counts: by then the connection stands.
            self.round_trip_s = self._monotonic() - began

    def is_foreign(self, key: str, contents: metadata.Contents) -> bool:
        """Look again before believing that another object has the key: an answer whose headers were cut off on the
        way says so too, and the dump would be stored twice. Raises Unreachable if the two answers differ.
        """
        again = self.look(key)
        if again is None or metadata.holds(again.metadata, contents):
            raise Unreachable(f"{self._store.name} gave two answers about {key}", hint="it is asked again")
        return True

    def is_whole(self, found: StoredObject | None, load: PreparedJob, *, packed: bool) -> bool:
        """Say whether an object is this dump from end to end. Raises as the store does, where it must be asked."""
        if found is None or found.reserved or not metadata.holds(found.metadata, load.contents):
            return False
        if not packed:
            return found.size_bytes == load.contents.size_bytes
        # How long it has to be is known to nobody, but it has to end with what the dump ends with.
        start = max(0, found.size_bytes - _TAIL_BYTES)
        if not found.size_bytes:
            return False
        tail = b"".join(self._store.read(found.key, start=start, length=found.size_bytes - start))
        content = chunked.last_member(tail)
        if not content or len(content) > load.contents.size_bytes:
            return False
        return content == read_span(load.fd, load.contents.size_bytes - len(content), len(content))

    def _candidates(self, load: PreparedJob, original: str) -> Iterable[str]:
        return candidates(
            prefix=self._prefix,
            original=original,
            dump_time_ms=load.errand.dump_time_ms,
            node=self._node,
            crc32=load.contents.crc32,
        )


def is_our_mark(found: StoredObject, contents: metadata.Contents) -> bool:
    """Say whether the key is only reserved, by an upload of this very dump."""
    return found.reserved and metadata.holds(found.metadata, contents)


def all_taken(errand: Job) -> Refused:
    """Give the error for a dump none of whose keys is free."""
    return Refused(
        f"every key for {errand.original} is taken by other objects",
        hint="nothing was overwritten; set S3_PREFIX to one of your own, or look who else writes to this bucket",
    )
