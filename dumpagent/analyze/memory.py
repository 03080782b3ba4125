"""How much memory an analysis needs, told before it is taken, against what there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dumpagent.errors import DumpagentError

# Python, numba, and the buffers: measured on CPython 3.11 to 3.13.
_FIXED_BYTES = 220 << 20
# By object: class, elements, three numbers and two trees of a walk, ways, retained bytes, and the line of the tree.
_PER_OBJECT_BYTES = 50


class NeedsMoreMemory(DumpagentError):
    """The memory at hand is not enough for this dump, which takes `need_bytes`."""

    def __init__(self, message: str, *, hint: str, need_bytes: int) -> None:
        super().__init__(message, hint=hint)
        self.need_bytes = need_bytes


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `limit_bytes` may be used; `tell` is told, in a sentence, what is needed."""

    limit_bytes: int
    tell: Callable[[str], None]
    spilled: bool = False

    def expect(self, objects: int, references_most: int, index_bytes: int) -> None:
        """Tell what `objects` need, and raise NeedsMoreMemory where that is more than there is."""
        need = need_bytes(objects, references_most, index_bytes)
        self.tell(
            f"{objects:,} objects: this takes about {need / 2**30:.1f} GiB of memory; {self.limit_bytes / 2**30:.1f} GiB are at hand"
        )
        if need > self.limit_bytes and not self.spilled:
            raise NeedsMoreMemory(
                f"{objects:,} objects need about {need / 2**30:.1f} GiB of memory, {self.limit_bytes / 2**30:.1f} GiB are at hand",
                hint="run it where there is more memory (raise the container's limit), or name a directory for what does not fit with --spill",
                need_bytes=need,
            )


def need_bytes(objects: int, references_most: int, index_bytes: int) -> int:
    """Give the memory that an analysis takes. Fields and elements that are null make up half of the references."""
    return _FIXED_BYTES + index_bytes + _PER_OBJECT_BYTES * objects + 2 * min(references_most, 3 * objects)
