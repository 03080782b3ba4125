"""Looks at the memory of the node's pods again and again, and tells of each kill that left no heap dump.

A kill is what the kernel's own counter says (oom_kill); a stop, an exit or page cache that is given back never counts.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from dumpagent.errors import DumpagentError
from dumpagent.memory_watch.cause import explain, explain_unseen
from dumpagent.memory_watch.cgroups import Figures, Hierarchy, PodCgroup, pods, read_figures
from dumpagent.memory_watch.heap import heap_of, spec_limit
from dumpagent.memory_watch.pods import PodSpec
from dumpagent.memory_watch.tight import Tight, tight_containers
from dumpagent.observe.events import Tell
from dumpagent.observe.events.memory import (
    ContainerKilled,
    KillLeftDump,
    MemoryEased,
    MemoryLooked,
    MemoryTight,
    PidsLimitReached,
    PodsListed,
    PodsUnlisted,
)
from dumpagent.observe.incident import Incident

KEPT_S = 60.0
_LIST_EVERY_S, _LIST_AT_MOST_EVERY_S = 60.0, 2.0
_DUMP_AGE_S = 900.0  # a dump of a large heap is begun so long before its JVM is killed
_STATUS_S = 30.0  # until the runtime's word about a container is in the API server
_REFUSED_EVERY_S = 600.0
_ENDS_S = 2.0  # so long a killed process may take to end
_SPEC_S = 10.0  # so long a kill waits for the list that says whose it was; a container may die within a second of its start

ListPods = Callable[[], dict[str, PodSpec]]  # raises DumpagentError


@dataclass
class _WatchedContainer:
    """One container: its last minute, oldest first, as (monotonic time, figures)."""

    since: float  # wall clock: when it was first seen
    minute: deque[tuple[float, Figures]] = field(default_factory=deque)
    killed: list[Figures] | None = None  # the last minute before a kill, which the next look tells
    killed_at: float | None = None  # monotonic, of the last kill, told or not
    gone_at: float | None = None

    def note(self, now: float, figures: Figures) -> None:
        self.minute.append((now, figures))
        while now - self.minute[0][0] > KEPT_S:
            self.minute.popleft()

    @property
    def last(self) -> Figures:
        return self.minute[-1][1]

    @property
    def figures(self) -> list[Figures]:
        return [figures for _, figures in self.minute]


@dataclass(frozen=True)
class _Kill:
    """A kill that is known and not told yet: `at` is on the monotonic clock, `since` the container's start (wall clock)."""

    uid: str
    container_id: str
    minute: list[Figures]
    since: float | None
    lives_on: bool
    at: float


@dataclass
class _WatchedPod:
    kills: int  # of the pod's own counter, as far as it is explained
    refused: int = 0  # threads and processes, of the pod's own counter, as far as they were told
    refused_told_at: float | None = None
    containers: dict[str, _WatchedContainer] = field(default_factory=dict)


class MemoryWatcher:
    """Holds what the last minute showed; `step` is one look. `list_pods` is None where there is no token."""

    def __init__(
        self,
        tree: Hierarchy,
        *,
        dump_root: str,
        list_pods: ListPods | None,
        tell: Tell,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tree, self._root, self._list_pods, self._tell = tree, dump_root, list_pods, tell
        self._now, self._monotonic = now, monotonic
        self._pods: dict[str, _WatchedPod] = {}
        self._specs: dict[str, PodSpec] = {}
        self._listed_at: float | None = None
        self._listed_for: Set[str] = frozenset()  # pods and containers that the last list was asked for
        self._unlisted = Incident(tell, PodsUnlisted, PodsListed, monotonic=monotonic)
        self._tight: dict[tuple[str, str], Tight] = {}
        self._untold: list[_Kill] = []
        self._seen: Set[str] | None = None  # pods of the last look; None: this daemon has not looked yet
        # Containers whose kill is told, or older than this daemon; None: no list has told yet which are older.
        self._accounted: set[str] | None = None

    def step(self) -> int:
        """Look once, and give how many pods are watched. Raises OSError when the tree of cgroups cannot be read."""
        found = {pod.uid: pod for pod in pods(self._tree)}
        self._refresh(found)
        watched = [pod for pod in found.values() if self._is_watched(pod.uid)]
        for pod in watched:
            self._look(pod)
        self._seen = found.keys()
        for uid in self._pods.keys() - found.keys():
            # The whole pod was removed: a stop, or an eviction, which the kubelet tells; or a kill that was just counted.
            for container_id, container in self._pods.pop(uid).containers.items():
                if container.killed is not None:
                    self._killed(uid, container_id, container, container.killed, lives_on=False)
        self._look_for_the_unseen()
        self._tell_kills()
        self._tell(MemoryLooked(pods=len(watched), tight=len(self._tight)))
        return len(watched)

    # -- whose they are -----------------------------------------------------------------------------------------

    def _refresh(self, found: Mapping[str, PodCgroup]) -> None:
        if self._list_pods is None:
            return
        age_s = None if self._listed_at is None else self._monotonic() - self._listed_at
        seen = found.keys() | {name for pod in found.values() for name in pod.containers}
        unknown = seen - self._listed_for
        awaited = any(c.gone_at is not None for pod in self._pods.values() for c in pod.containers.values())
        wait_s = _LIST_AT_MOST_EVERY_S if unknown or awaited or self._untold else _LIST_EVERY_S
        if age_s is not None and age_s < wait_s:
            return
        self._listed_at = self._monotonic()
        try:
            self._specs = self._list_pods()
        except DumpagentError as error:
            self._unlisted.failed("pods", PodsUnlisted(error=str(error), hint=error.hint or None))
            return
        self._listed_for = seen
        if self._accounted is None:
            self._accounted = {name for spec in self._specs.values() for name in spec.killed}
        self._unlisted.ended_for("pods", PodsListed())
        self._tell_tight()

    def _is_watched(self, uid: str) -> bool:
        """Say whether the pod uses the dump volume; one that no list has named may, and counts until a list says no."""
        spec = self._specs.get(uid)
        return self._list_pods is None or spec is None or spec.uses_volume

    def _tell_tight(self) -> None:
        """Tell, once each, of containers whose heap and usual native memory do not fit below their limit, and of their end."""
        tight = {(each.uid, each.container): each for each in tight_containers(self._specs.values())}
        for key, each in tight.items():
            if self._tight.get(key) != each:
                self._tell(MemoryTight(namespace=each.namespace, pod=each.pod, container=each.container,
                    limit_bytes=each.limit_bytes, heap_bytes=each.heap.most_bytes, native_bytes=each.heap.native_bytes,
                    reason=each.heap.option, hint=each.hint,
                ))  # fmt: skip
        for key in self._tight.keys() - tight.keys():
            gone = self._tight[key]
            self._tell(MemoryEased(namespace=gone.namespace, pod=gone.pod, container=gone.container))
        self._tight = tight

    # -- what happened to them ----------------------------------------------------------------------------------

    def _look(self, pod: PodCgroup) -> None:
        whole = read_figures(pod.path, self._tree.version)
        if whole is None:
            return
        known = self._pods.get(pod.uid)
        # What happened before this daemon looked has been told, or nobody can tell it any more.
        older = known is None and (self._seen is None or pod.uid in self._seen)
        if known is None:
            known = self._pods[pod.uid] = _WatchedPod(
                whole.oom_kills if older else 0, whole.refused_processes if older else 0
            )
        self._tell_refused(pod, known, whole)
        there: set[str] = set()
        for container_id, path in pod.containers.items():
            figures = read_figures(path, self._tree.version)
            if figures is None:
                continue  # it went since it was listed: judged below, with its last minute
            there.add(container_id)
            container = known.containers.setdefault(container_id, _WatchedContainer(self._now()))
            if container.killed is not None and not self._still_ends(container, figures):
                # Told one look later: only now is it certain whether the container outlives the kill.
                self._killed(
                    pod.uid, container_id, container, container.killed, lives_on=figures.processes > 0
                )
                container.killed = None
            before = container.last.oom_kills if container.minute else figures.oom_kills if older else 0
            if figures.oom_kills > before:
                container.killed, container.killed_at = [*container.figures, figures], self._monotonic()
                known.kills += figures.oom_kills - before
            container.note(self._monotonic(), figures)
        unexplained = whole.oom_kills - known.kills
        self._look_for_the_gone(pod.uid, there, known, unexplained)
        known.kills += max(0, unexplained)

    def _tell_refused(self, pod: PodCgroup, known: _WatchedPod, whole: Figures) -> None:
        """Tell, once in ten minutes, of threads that pids.max refused: the kubelet's podPidsLimit is the pod's."""
        spec, now = self._specs.get(pod.uid), self._monotonic()
        refused = whole.refused_processes - known.refused
        lately = known.refused_told_at is not None and now - known.refused_told_at < _REFUSED_EVERY_S
        if refused <= 0 or lately or (self._list_pods and not spec):
            return
        known.refused, known.refused_told_at = whole.refused_processes, now
        self._tell(PidsLimitReached(
            uid=pod.uid, namespace=spec.namespace if spec else None, pod=spec.name if spec else None,
            limit=whole.most_processes, refused=refused, hint="let the application use fewer threads (bounded pools), or "
            "raise podPidsLimit of the node's kubelet; `jcmd 1 Thread.print` names the threads",
        ))  # fmt: skip

    def _look_for_the_gone(self, uid: str, there: Set[str], known: _WatchedPod, kills: int) -> None:
        """Judge the containers whose cgroups went since the last look; `kills` are those that no other one explains."""
        now = self._monotonic()
        for container_id, container in list(known.containers.items()):
            if container_id in there:
                continue
            if container.gone_at is None:
                container.gone_at = now
            if container.killed is not None:
                self._killed(uid, container_id, container, container.killed, lives_on=False)
                del known.containers[container_id]
            elif self._tree.version == 2:
                # The pod's counter has outlived the container's: it says whether this end was a kill.
                if kills > 0 and container is _fullest(known, there):
                    kills = 0
                    self._killed(uid, container_id, container, container.figures, lives_on=False)
                del known.containers[container_id]
            elif container_id in self._killed_by_status(uid):
                # The runtime's word comes late: of a kill that the counter showed it is no news.
                if container.killed_at is None or now - container.killed_at > KEPT_S:
                    self._killed(uid, container_id, container, container.figures, lives_on=False)
                elif self._accounted is not None:
                    self._accounted.add(container_id)
                del known.containers[container_id]
            elif now - container.gone_at > _STATUS_S or self._list_pods is None:
                del known.containers[container_id]
        if kills > 0 and self._tree.version == 2:
            # A container that came and went between two looks: the pod's own counter is all there is.
            self._killed(uid, "", None, [], lives_on=False)

    def _look_for_the_unseen(self) -> None:
        """Judge the containers that the runtime reports as killed and that no look ever saw.

        Under version 1 no counter outlives them; under version 2 the pod's has told of them.
        """
        if self._accounted is None:
            return
        for uid, spec in self._specs.items():
            seen = self._pods[uid].containers if uid in self._pods else {}
            for container_id in spec.killed - self._accounted - seen.keys():
                if self._tree.version == 1 and spec.uses_volume:
                    self._killed(uid, container_id, None, [], lives_on=False)
                self._accounted.add(container_id)

    def _still_ends(self, container: _WatchedContainer, figures: Figures) -> bool:
        """Say whether the killed process may still be counted: it gives its memory back first, which takes its time."""
        before = container.killed[-2].processes if container.killed and len(container.killed) > 1 else 0
        age_s = self._monotonic() - (container.killed_at or 0.0)
        return 0 < before <= figures.processes and age_s < _ENDS_S

    def _killed_by_status(self, uid: str) -> frozenset[str]:
        spec = self._specs.get(uid)
        return spec.killed if spec else frozenset()

    def _killed(
        self,
        uid: str,
        container_id: str,
        known: _WatchedContainer | None,
        minute: list[Figures],
        *,
        lives_on: bool,
    ) -> None:
        since = known.since if known else None
        if self._accounted is not None:
            self._accounted.add(container_id)
        self._untold.append(_Kill(uid, container_id, minute, since, lives_on, self._monotonic()))

    def _tell_kills(self) -> None:
        """Tell each kill whose pod and container are known by now, or will not be known any more."""
        waiting = []
        for kill in self._untold:
            spec = self._specs.get(kill.uid)
            if spec and not spec.uses_volume:
                continue
            if (
                self._list_pods
                and self._monotonic() - kill.at < _SPEC_S
                and not _names(spec, kill.container_id)
            ):
                waiting.append(kill)
            else:
                self._tell_kill(kill, spec)
        self._untold = waiting

    def _tell_kill(self, kill: _Kill, spec: PodSpec | None) -> None:
        container: Mapping[str, Any] = (spec.containers.get(kill.container_id) or {}) if spec else {}
        if not container and spec and len(spec.specs) == 1:
            container = spec.specs[0]
        who: dict[str, Any] = {
            "uid": kill.uid,
            "namespace": spec.namespace if spec else None,
            "pod": spec.name if spec else None,
            "container": container.get("name"),
            "container_id": kill.container_id[:12] or None,
        }
        since = self._now() if kill.since is None else kill.since
        if spec and not kill.lives_on and self._left_a_dump(spec, since):
            self._tell(KillLeftDump(**who))
            return
        limit = spec_limit(container)
        if not kill.minute or (limit and all(each.limit is None for each in kill.minute)):
            told = explain_unseen(heap_of(container, limit) if container else None, limit)
            self._tell(ContainerKilled(
                **who, cause=told.cause.value, reason=told.reason, hint=told.hint, limit_bytes=limit
            ))  # fmt: skip
            return
        last = kill.minute[-1]
        heap = heap_of(container, last.limit) if container else None
        told = explain(kill.minute, heap, lives_on=kill.lives_on)
        self._tell(ContainerKilled(**who, cause=told.cause.value, reason=told.reason, hint=told.hint,
            limit_bytes=last.limit, anonymous_bytes=max(each.anonymous for each in kill.minute),
            page_cache_bytes=last.page_cache, processes=max(each.processes for each in kill.minute),
            pressure_percent=last.pressure_percent, lives_on=kill.lives_on or None,
        ))  # fmt: skip

    def _left_a_dump(self, pod: PodSpec, since: float) -> bool:
        """Say whether the pod's own directory or file on the volume changed in the container's life, and lately.

        Then a dump is there, whole or cut, and the uploader tells of it. Nothing of other users' is opened.
        """
        since = max(since, self._now() - _DUMP_AGE_S)
        own = f"{pod.namespace}_{pod.name}"
        try:
            with os.scandir(self._root) as entries:
                names = [each.name for each in entries if each.name == own or each.name.startswith(f"{own}.")]
        except OSError:
            return False  # unknown: a kill that is told twice is better than one that is not
        for path in (*(f"{self._root}/{name}" for name in names), f"{self._root}/{pod.namespace}/{pod.name}"):
            try:
                if os.stat(path, follow_symlinks=False).st_mtime >= since:
                    return True
            except OSError:
                continue
        return False


def _names(spec: PodSpec | None, container_id: str) -> bool:
    """Say whether a list told which container of which pod this is; "" is one that nobody saw."""
    return spec is not None and (container_id in spec.containers or len(spec.specs) <= 1 or not container_id)


def _fullest(known: _WatchedPod, there: Set[str]) -> _WatchedContainer | None:
    """Give the one of the containers that went which was nearest to its limit."""
    gone = [c for container_id, c in known.containers.items() if container_id not in there and c.minute]
    return max(gone, key=lambda c: c.last.current / (c.last.limit or 1 << 62), default=None)
