"""Runs inside the machine, in the memory watch's container: the watcher with a list of pods that is a fake.

    watch_inside.py UID OPTIONS

Prints each event as a JSON line. There is no API server in the machine: the pod's spec comes from the command line.
"""

from __future__ import annotations

import json
import os
import sys
import time

from dumpagent.memory_watch.cgroups import Hierarchy, hierarchy, pods, read_figures
from dumpagent.memory_watch.pods import PodSpec
from dumpagent.memory_watch.watcher import MemoryWatcher
from dumpagent.observe.events import Event
from dumpagent.observe.events.memory import MemoryLooked


def _processes(tree: Hierarchy, uid: str) -> int:
    """Count the processes of the pod: a killed one is among them until it has given its memory back."""
    figures = (
        read_figures(path, tree.version)
        for pod in pods(tree)
        if pod.uid == uid
        for path in pod.containers.values()
    )
    return sum(each.processes for each in figures if each)


def main() -> None:
    """Watch until killed."""
    uid, options = sys.argv[1:]
    spec = {"name": "memory-leak-app", "env": [{"name": "JAVA_TOOL_OPTIONS", "value": options}]}
    tree = hierarchy(os.environ["CGROUP_ROOT"])

    def tell(event: Event, /) -> None:
        more = {"processes": _processes(tree, uid)} if isinstance(event, MemoryLooked) else {}
        print(json.dumps({"event": event.name, "at": time.time(), **event.fields(), **more}), flush=True)

    pod = PodSpec(uid, "memory-leak-demo", "memory-leak-app-9", True, (spec,))
    watcher = MemoryWatcher(tree, dump_root=os.environ["DUMP_ROOT"], list_pods=lambda: {uid: pod}, tell=tell)
    while True:
        watcher.step()
        time.sleep(1.0)


if __name__ == "__main__":
    main()
