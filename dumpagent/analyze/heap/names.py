"""The string records of a dump: hundreds of thousands, of which a report needs a few hundred."""

from __future__ import annotations

import numpy as np

from dumpagent.analyze.native import Array, be32, be64, compiled, int64
from dumpagent.hprof.facts import text_of
from dumpagent.hprof.records import RECORD_BYTES, STRING

_BATCH = 1 << 16


@compiled
def _run(
    content: Array, position: int, end: int, id_size: int, ids: Array, starts: Array, lengths: Array
) -> tuple[int, int]:
    """Note the whole string records that stand from `position` on; give how many, and where what follows begins."""
    count = 0
    while count < len(ids) and position + RECORD_BYTES + id_size <= end and content[position] == STRING:
        length = be32(content, int64(position + 5))
        following = position + RECORD_BYTES + length
        if length < id_size or following > end:
            break
        at = position + RECORD_BYTES
        ids[count] = be64(content, int64(at)) if id_size == 8 else be32(content, int64(at))
        starts[count] = at + id_size
        lengths[count] = length - id_size
        count += 1
        position = following
    return count, position


class HeapNames:
    """Texts by identifier. They are held as the dump has them, and decoded when asked for."""

    def __init__(self, id_size: int) -> None:
        self._id_size = id_size
        self._blobs: list[bytes] = []
        self._pieces: list[tuple[Array, Array, Array]] = []
        self._blob_bytes = 0
        self._order: Array | None = None
        self._ids = self._starts = self._lengths = np.zeros(0, np.int64)
        self._content = b""

    def pass_run(self, content: Array, position: int, end: int) -> int:
        """Keep the string records that stand from `position` on; give where what follows begins."""
        ids, starts, lengths = (np.empty(_BATCH, np.int64) for _ in range(3))
        count, following = _run(content, position, end, self._id_size, ids, starts, lengths)
        if count:
            self._blobs.append(content[position:following].tobytes())
            self._pieces.append(
                (ids[:count].copy(), starts[:count] - position + self._blob_bytes, lengths[:count].copy())
            )
            self._blob_bytes += following - position
            self._order = None
        return int(following)

    def _sort(self) -> Array:
        if self._order is None:
            self._content = b"".join(self._blobs)
            self._blobs = [self._content]
            if self._pieces:
                self._ids, self._starts, self._lengths = (
                    np.concatenate(each) for each in zip(*self._pieces, strict=True)
                )
                self._pieces = [(self._ids, self._starts, self._lengths)]
            self._order = np.argsort(self._ids, kind="stable")
        return self._order

    def raw(self, name_id: int) -> bytes | None:
        """Give the bytes of the string record with this identifier; None if there is none."""
        order = self._sort()
        at = int(np.searchsorted(self._ids, name_id, sorter=order))
        if at >= len(order) or self._ids[order[at]] != name_id:
            return None
        start = int(self._starts[order[at]])
        return self._content[start : start + int(self._lengths[order[at]])]

    def text(self, name_id: int) -> str:
        """Give the text with this identifier, or words that say that there is none."""
        raw = self.raw(name_id)
        return text_of(raw) if raw is not None else f"(name {name_id:#x} is missing)"
