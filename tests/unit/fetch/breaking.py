"""A store whose connections break in the middle of a body."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dumpagent.errors import Unreachable
from tests.harness.stores.memory import MemoryStore


class BreakingStore(MemoryStore):
    """The n-th read gives `cuts[n]` bytes and breaks; behind the list all is well. `reads` are the offsets asked for."""

    def __init__(self, behind: MemoryStore, *cuts: int, then: Callable[[], object] = lambda: None) -> None:
        self.__dict__.update(behind.__dict__)
        self.cuts, self.reads, self.then = list(cuts), list[int](), then

    def read(
        self, key: str, *, start: int = 0, length: int | None = None, etag: str | None = None
    ) -> Iterator[bytes]:
        self.reads.append(start)
        content = b"".join(MemoryStore.read(self, key, start=start, length=length, etag=etag))
        if not self.cuts:
            for at in range(0, len(content), 1000):
                yield content[at : at + 1000]
            return
        cut = self.cuts.pop(0)
        if cut:
            yield content[:cut]
        self.then()
        raise Unreachable("reading: the connection broke")
