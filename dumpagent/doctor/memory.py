"""Says which containers of this node will be killed by the kernel before their JVM can write a heap dump."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from dumpagent.doctor.finding import Finding, Result
from dumpagent.memory_watch.pods import PodSpec
from dumpagent.memory_watch.tight import tight_containers
from dumpagent.notify.api_server import Forbidden
from dumpagent.units import MIB

ListPods = Callable[[], Mapping[str, PodSpec]]
_ELSEWHERE = (
    "run `dumpagent memory-watch --once` in a pod of manifests/memory-watch, whose token may list pods"
)


def memory(list_pods: ListPods | None) -> Iterator[Finding]:
    """Compare limits and heaps of the pods that use the dump volume; `list_pods` is None where there is no token.

    Raises Unreachable.
    """
    if list_pods is None:
        yield Finding("memory", Result.SKIPPED, "no token: pods cannot be listed from here", _ELSEWHERE)
        return
    try:
        pods = list_pods().values()
    except Forbidden as error:
        yield Finding("memory", Result.SKIPPED, str(error), _ELSEWHERE)
        return
    tight = tight_containers(pods)
    for each in tight:
        seen = (
            f"container {each.container} of {each.namespace}/{each.pod}: limit {each.limit_bytes // MIB} MiB, heap at most "
            f"{each.heap.most_bytes // MIB} MiB ({each.heap.option}), usual native memory {each.heap.native_bytes // MIB} MiB: "
            "the kernel will kill it before a heap dump"
        )
        yield Finding("memory", Result.WARNING, seen, each.hint)
    if not tight:
        using = sum(pod.uses_volume for pod in pods)
        yield Finding(
            "memory", Result.OK, f"{using} pods use the dump volume, and no known heap is too large"
        )
