"""Which containers will be killed before a heap dump: heap and usual native memory do not fit below their limit; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from dumpagent.memory_watch.heap import Heap, heap_of, spec_limit
from dumpagent.memory_watch.pods import PodSpec
from dumpagent.units import MIB


@dataclass(frozen=True, slots=True)
class Tight:
    """One such container."""

    uid: str
    namespace: str
    pod: str
    container: str
    limit_bytes: int
    heap: Heap

    @property
    def missing_bytes(self) -> int:
        """Give by how much the limit is too low."""
        return self.heap.most_bytes + self.heap.native_bytes - self.limit_bytes

    @property
    def hint(self) -> str:
        """Say what to change."""
        return f"raise the limit to {(self.limit_bytes + self.missing_bytes) // MIB} MiB, or lower the heap"


def tight_containers(pods: Iterable[PodSpec]) -> list[Tight]:
    """Give the containers, among those of pods that use the dump volume, whose heap does not fit."""
    found = []
    for pod in pods:
        for container in pod.specs if pod.uses_volume else ():
            limit = spec_limit(container)
            heap = heap_of(container, limit)
            if limit and heap and heap.most_bytes + heap.native_bytes > limit:
                found.append(Tight(pod.uid, pod.namespace, pod.name, str(container.get("name")), limit, heap))
    return found
