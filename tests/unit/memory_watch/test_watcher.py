"""The watcher on trees of files that look like the kernel's (a fake): kills are told once and rightly, all else is silence.

Real kills by real kernels: tests/integration/test_memory_watch.py (version 1 of cgroups) and tests/vm (version 2).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dumpagent.errors import Unreachable
from dumpagent.memory_watch.cgroups import hierarchy, pods
from dumpagent.memory_watch.pods import PodSpec, list_pods
from dumpagent.memory_watch.watcher import MemoryWatcher
from dumpagent.observe.events import Event
from dumpagent.observe.events.memory import (
    ContainerKilled,
    KillLeftDump,
    MemoryLooked,
    MemoryTight,
    PidsLimitReached,
    PodsUnlisted,
)
from dumpagent.observe.metrics.memory import MemoryWatchMetrics

MIB = 1 << 20
UID = "0a1b2c3d-0000-1111-2222-333344445555"
ID = "c0ffee" * 10


class Tree:
    """A node's cgroups as files; `version` 1 or 2."""

    def __init__(self, root: Path, version: int) -> None:
        self.version = version
        self.base = root / "cgroup" if version == 2 else root / "cgroup" / "memory"
        self.base.mkdir(parents=True)
        (self.base / ("cgroup.controllers" if version == 2 else "memory.oom_control")).write_text("memory\n")
        self.mount = str(root / "cgroup")
        slices = (
            f"kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
        )
        self.pod = self.base / slices
        self.set(self.pod, anon=0)

    def container(self, container_id: str = ID) -> Path:
        return self.pod / f"crio-{container_id}.scope"

    def set(
        self,
        path: Path,
        *,
        anon: int,
        file: int = 0,
        shmem: int = 0,
        limit: int = 256,
        kills: int = 0,
        processes: int = 1,
        high: int = 0,
        refused: int = 0,
    ) -> None:
        path.mkdir(parents=True, exist_ok=True)
        current, procs = (anon + file + shmem) * MIB, "0\n" * processes
        if self.version == 2:
            files = {
                "memory.current": f"{current}\n", "memory.max": f"{limit * MIB}\n", "cgroup.procs": procs,
                "memory.stat": f"anon {anon * MIB}\nfile {(file + shmem) * MIB}\nshmem {shmem * MIB}\n",
                "memory.events": f"low 0\nhigh 0\nmax 9\noom {kills}\noom_kill {kills}\noom_group_kill 0\n",
                "memory.high": f"{high * MIB}\n" if high else "max\n",
                "pids.max": "512\n", "pids.events": f"max {refused}\n",
                "memory.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
            }  # fmt: skip
        else:
            files = {
                "memory.usage_in_bytes": f"{current}\n", "memory.limit_in_bytes": f"{limit * MIB}\n", "cgroup.procs": procs,
                "memory.stat": f"total_cache {(file + shmem) * MIB}\ntotal_rss {anon * MIB}\ntotal_shmem {shmem * MIB}\n",
                "memory.oom_control": f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n",
            }  # fmt: skip
        for name, text in files.items():
            (path / name).write_text(text)


class World:
    """A tree, a clock, and what was told."""

    def __init__(
        self, folder: Path, version: int, *, options: str | None = "-Xmx100m", token: bool = True
    ) -> None:
        self.tree, self.clock = Tree(folder, version), 1000.0
        self.told: list[tuple[type[Event], dict[str, Any]]] = []
        self.hear: Callable[[Event], object] = lambda event: None
        self.dumps = folder / "dump"
        self.dumps.mkdir()
        spec: dict[str, Any] = {"name": "app", "resources": {"limits": {"memory": "256Mi"}}}
        if options is not None:
            spec["env"] = [{"name": "JAVA_TOOL_OPTIONS", "value": options}]
        self.pod = PodSpec(UID, "shop", "orders-1", True, (spec,), {ID: spec})
        self.listing: Callable[[], dict[str, PodSpec]] = lambda: {UID: self.pod}
        self.watcher = MemoryWatcher(
            hierarchy(self.tree.mount),
            dump_root=str(self.dumps),
            list_pods=(lambda: self.listing()) if token else None,
            tell=self._hear,
            now=lambda: self.clock,
            monotonic=lambda: self.clock,
        )

    def _hear(self, event: Event, /) -> None:
        self.told.append((type(event), event.fields()))
        self.hear(event)

    def step(self, seconds: float = 1.0) -> None:
        self.clock += seconds
        self.watcher.step()

    def grow(self, *anon: int, processes: int = 1) -> None:
        for each in anon:
            self.tree.set(self.tree.container(), anon=each, processes=processes)
            self.step()

    def kill(self, *, processes: int = 0) -> None:
        """Let the kernel kill, and look twice."""
        self.tree.set(self.tree.pod, anon=0, kills=1 if self.tree.version == 2 else 0)
        self.tree.set(self.tree.container(), anon=5, kills=1, processes=processes)
        self.step()
        self.step()

    @property
    def kills(self) -> list[dict[str, Any]]:
        return [fields for event, fields in self.told if event is ContainerKilled]


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_native_memory_is_told_from_a_heap_that_fits(tmp_path: Path, version: int) -> None:
    """The heap was at most 100 MiB of a limit of 256: something else took the rest."""
    world = World(tmp_path, version)
    world.grow(100, 180, 250)
    world.kill()
    (kill,) = world.kills
    assert kill["cause"] == "native_memory"
    assert (kill["namespace"], kill["pod"], kill["container"]) == ("shop", "orders-1", "app")
    assert "limit 256 MiB, heap at most 100 MiB (-Xmx100m), anonymous memory 250 MiB" in kill["reason"]
    assert "MaxRAMPercentage" in kill["hint"]


def test_a_heap_above_the_limit_is_told_before_and_after(tmp_path: Path, version: int) -> None:
    """Before: as tight, once. After: as what it was."""
    world = World(tmp_path, version, options="-Xmx250m")
    world.grow(100)
    assert [fields["pod"] for event, fields in world.told if event is MemoryTight] == ["orders-1"]
    world.grow(200, 250)
    world.kill()
    assert [kill["cause"] for kill in world.kills] == ["heap_above_limit"]
    assert len([event for event, _ in world.told if event is MemoryTight]) == 1


def test_a_process_beside_the_jvm_is_told_and_the_jvm_lives(tmp_path: Path, version: int) -> None:
    """No dump was lost, but the next kill may take the JVM."""
    world = World(tmp_path, version)
    world.grow(80)
    world.grow(120, 250, processes=2)
    world.kill(processes=1)
    assert [(kill["cause"], kill["lives_on"]) for kill in world.kills] == [("other_process", True)]


def test_files_in_memory_are_told(tmp_path: Path, version: int) -> None:
    """An emptyDir of medium Memory counts against the limit."""
    world = World(tmp_path, version)
    world.tree.set(world.tree.container(), anon=60, shmem=190)
    world.step()
    world.kill()
    assert [kill["cause"] for kill in world.kills] == ["shared_memory"]


def test_without_a_heap_in_the_spec_the_figures_are_told(tmp_path: Path, version: int) -> None:
    """A cause that is not known is not made up."""
    world = World(tmp_path, version, options=None)
    world.grow(250)
    world.kill()
    assert [(kill["cause"], kill["anonymous_bytes"]) for kill in world.kills] == [("unknown", 250 * MIB)]


def test_without_a_token_the_uid_is_told(tmp_path: Path, version: int) -> None:
    """And each pod of the node is watched."""
    world = World(tmp_path, version, token=False)
    world.grow(250)
    world.kill()
    assert [(kill["uid"], kill["pod"]) for kill in world.kills] == [(UID, None)]


def test_a_container_whose_cgroup_went_with_the_kill_is_told_by_the_pods_counter(tmp_path: Path) -> None:
    """Version 2: the runtime removes the container's cgroup within milliseconds, the pod's stays."""
    world = World(tmp_path, 2)
    world.grow(100, 250)
    world.tree.set(world.tree.pod, anon=0, kills=3)  # memory.oom.group: all its processes at once
    shutil.rmtree(world.tree.container())
    world.step()
    world.step()
    assert [kill["cause"] for kill in world.kills] == ["native_memory"]


def test_a_container_whose_cgroup_goes_while_it_is_looked_at_is_explained_all_the_same(
    tmp_path: Path,
) -> None:
    """It was listed and could not be read any more: its kill had the cause `unknown`, though its last minute was known."""
    world = World(tmp_path, 2)
    world.grow(50, 150, 240)
    world.tree.set(world.tree.pod, anon=0, kills=1)
    for file in world.tree.container().iterdir():
        file.unlink()
    world.step()
    shutil.rmtree(world.tree.container())
    world.step()
    (kill,) = world.kills
    assert kill["cause"] == "native_memory"
    assert kill["anonymous_bytes"] == 240 * MIB


def test_on_version_1_the_runtimes_word_counts_when_the_cgroup_is_gone(tmp_path: Path) -> None:
    """There the pod's own counter stays 0: only the status of the container tells."""
    world = World(tmp_path, 1)
    world.grow(100, 250)
    shutil.rmtree(world.tree.container())
    world.step()
    assert world.kills == []
    pod = world.pod
    world.pod = PodSpec(pod.uid, pod.namespace, pod.name, True, pod.specs, pod.containers, frozenset({ID}))
    world.step(6)
    assert [kill["cause"] for kill in world.kills] == ["native_memory"]


def test_a_kill_that_is_quicker_than_the_list_of_pods_is_explained_all_the_same(
    tmp_path: Path, version: int
) -> None:
    """A container may die within a second of its start: the list of then knows neither the pod nor its heap."""
    world = World(tmp_path, version)
    listed = world.listing
    world.listing = dict
    world.grow(100, 250)
    world.kill()
    assert world.kills == []
    world.listing = listed
    world.step(2)
    world.step()
    assert [(kill["pod"], kill["cause"]) for kill in world.kills] == [("orders-1", "native_memory")]


def test_of_several_containers_the_killed_one_is_waited_for(tmp_path: Path, version: int) -> None:
    """The pod is listed before the kubelet has told its containers' ids."""
    world = World(tmp_path, version)
    told, proxy = world.pod, {"name": "proxy"}
    world.pod = PodSpec(UID, "shop", "orders-1", True, (proxy, *told.specs))
    world.grow(100, 250)
    world.kill()
    assert world.kills == []
    world.pod = PodSpec(UID, "shop", "orders-1", True, (proxy, *told.specs), told.containers)
    world.step(2)
    assert [(kill["container"], kill["cause"]) for kill in world.kills] == [("app", "native_memory")]


def test_a_kill_in_the_first_second_of_a_new_pod_is_told(tmp_path: Path, version: int) -> None:
    """The daemon was there before the pod: nobody else has told of it."""
    world = World(tmp_path, version)
    shutil.rmtree(world.tree.pod)
    world.step()
    world.kill()
    world.step()
    assert [kill["pod"] for kill in world.kills] == ["orders-1"]


def test_a_kill_is_told_though_the_whole_pod_went_at_once(tmp_path: Path, version: int) -> None:
    """A Job's pod: nothing restarts it, and its cgroup goes with the container."""
    world = World(tmp_path, version)
    world.grow(100, 250)
    world.tree.set(world.tree.container(), anon=250, kills=1, processes=0)
    world.step()
    shutil.rmtree(world.tree.pod)
    world.step()
    world.step()
    assert [kill["cause"] for kill in world.kills] == ["native_memory"]


def test_a_tight_container_is_counted_by_name_until_it_is_gone(tmp_path: Path, version: int) -> None:
    """The metric says by how much its limit is too low, and names no pod that is gone."""
    metrics = MemoryWatchMetrics()
    world = World(tmp_path, version, options="-Xmx250m")
    world.hear = metrics
    world.grow(100)
    series = 'dumpagent_memory_missing_bytes{app_container="app",app_namespace="shop",app_pod="orders-1"} '
    (line,) = [line for line in metrics.text().decode().splitlines() if line.startswith(series)]
    assert float(line.removeprefix(series)) == (250 + 64 - 256) * MIB + 250 * MIB // 16
    world.listing = dict
    world.step(61)
    assert series not in metrics.text().decode()


def test_a_container_slowed_down_before_its_kill_is_told_so(tmp_path: Path) -> None:
    """The kubelet's MemoryQoS sets memory.high below the limit."""
    world = World(tmp_path, 2)
    world.tree.set(world.tree.container(), anon=250, high=230)
    world.step()
    world.kill()
    assert "slowed down from memory.high 230 MiB on" in world.kills[0]["reason"]


def test_threads_that_the_pids_limit_refused_are_told_once_in_ten_minutes(tmp_path: Path) -> None:
    """HotSpot throws an OutOfMemoryError then and writes no heap dump."""
    world = World(tmp_path, 2)
    world.grow(100)
    for refused in (3, 9, 20):
        world.tree.set(world.tree.pod, anon=0, refused=refused)
        world.step()
    world.step(600)
    told = [fields for event, fields in world.told if event is PidsLimitReached]
    assert [(each["pod"], each["limit"], each["refused"]) for each in told] == [
        ("orders-1", 512, 3),
        ("orders-1", 512, 17),
    ]


def test_a_kill_that_the_counter_showed_is_not_told_again_by_the_runtimes_word(tmp_path: Path) -> None:
    """Version 1: the cgroup stays for some looks after the kill, and the status says OOMKilled later."""
    world = World(tmp_path, 1)
    world.grow(100, 250)
    world.kill()
    world.step()
    shutil.rmtree(world.tree.container())
    pod = world.pod
    world.pod = PodSpec(pod.uid, pod.namespace, pod.name, True, pod.specs, pod.containers, frozenset({ID}))
    for _ in range(5):
        world.step(3)
    assert [kill["cause"] for kill in world.kills] == ["native_memory"]


def test_a_container_that_no_look_ever_saw_is_told_by_the_runtimes_word(tmp_path: Path) -> None:
    """Version 1: a container that is killed within a moment of its start leaves no counter behind."""
    world = World(tmp_path, 1)
    world.step()
    pod, short = world.pod, "5407" * 16
    containers = {**pod.containers, short: pod.specs[0]}
    world.pod = PodSpec(pod.uid, pod.namespace, pod.name, True, pod.specs, containers, frozenset({short}))
    for _ in range(40):
        world.step(3)
    ((kill),) = world.kills
    assert (kill["cause"], kill["pod"], kill["limit_bytes"]) == ("native_memory", "orders-1", 256 * MIB)
    assert (
        "less than the time between two looks: limit 256 MiB, heap at most 100 MiB (-Xmx100m)"
        in kill["reason"]
    )


def test_a_kill_that_was_reported_before_this_daemon_began_is_no_news(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    pod = world.pod
    world.pod = PodSpec(pod.uid, pod.namespace, pod.name, True, pod.specs, pod.containers, frozenset({"old"}))
    for _ in range(40):
        world.step(3)
    assert world.kills == []


def test_a_killed_process_that_takes_its_time_to_end_is_no_container_that_lives_on(
    tmp_path: Path, version: int
) -> None:
    """On a busy node it is still counted at the next look."""
    world = World(tmp_path, version)
    world.grow(100, 250)
    world.kill(processes=1)
    world.tree.set(world.tree.container(), anon=0, kills=1, processes=0)
    world.step()
    assert [(kill["cause"], kill["lives_on"]) for kill in world.kills] == [("native_memory", None)]


def test_a_kill_that_left_a_dump_is_no_news(tmp_path: Path, version: int) -> None:
    """The uploader tells of the dump, whole or cut."""
    world = World(tmp_path, version)
    world.grow(100, 250)
    own = world.dumps / "shop_orders-1"
    own.mkdir()
    os.utime(own, (world.clock, world.clock))
    world.kill()
    assert world.kills == []
    assert any(event is KillLeftDump for event, _ in world.told)


def test_the_pods_directory_alone_is_no_dump(tmp_path: Path, version: int) -> None:
    """`dumpagent wait` makes it before the container starts."""
    world = World(tmp_path, version)
    own = world.dumps / "shop_orders-1"
    own.mkdir()
    os.utime(own, (world.clock, world.clock))
    world.grow(100, 250)
    world.kill()
    assert len(world.kills) == 1


@pytest.mark.slow
def test_24_healthy_hours_tell_nothing(tmp_path: Path, version: int) -> None:
    """Page cache at the limit, restarts, stops, pods that come and go: a look each minute of a simulated day."""
    world = World(tmp_path, version)
    for look in range(24 * 60):
        container_id = f"{look // 300:02}{ID}"
        if look % 300 == 0 and world.tree.pod.exists():
            for old in world.tree.pod.glob("crio-*"):
                shutil.rmtree(old)  # a stop: SIGTERM, or SIGKILL by the kubelet
        if look % 600 == 550:
            shutil.rmtree(world.tree.pod)
            world.tree.set(world.tree.pod, anon=0)
        world.tree.set(
            world.tree.container(container_id), anon=90 + look % 60, file=100, processes=1 + look % 3
        )
        world.step(60)
    assert [event.name for event, _ in world.told if event is not MemoryLooked] == []


def test_kills_before_the_daemon_started_are_not_told_again(tmp_path: Path, version: int) -> None:
    """The kernel's counters are older than the daemon."""
    world = World(tmp_path, version)
    world.tree.set(world.tree.pod, anon=0, kills=7)
    world.tree.set(world.tree.container(), anon=50, kills=7)
    world.step()
    world.step()
    assert world.kills == []


def test_a_pod_that_does_not_use_the_volume_is_not_watched(tmp_path: Path, version: int) -> None:
    """It would have left no dump in any case."""
    world = World(tmp_path, version)
    world.pod = PodSpec(UID, "shop", "nginx-1", False)
    world.grow(250)
    world.kill()
    assert world.kills == []


def test_an_api_server_that_is_away_is_told_once_and_kills_still_are(tmp_path: Path, version: int) -> None:
    """Unknown is not "no": then each pod of the node counts."""
    world = World(tmp_path, version)

    def away() -> dict[str, PodSpec]:
        raise Unreachable("no route to host")

    world.listing = away
    world.grow(100, 250)
    world.kill()
    world.step(10)
    world.step(10)
    assert [event for event, _ in world.told if event is PodsUnlisted] == [PodsUnlisted]
    assert [(kill["uid"], kill["pod"]) for kill in world.kills] == [(UID, None)]


@pytest.mark.parametrize(
    ("pod", "container"),
    [
        ("kubepods/burstable/pod0a1b2c3d-0000-1111-2222-333344445555", "c0ffee"),
        ("kubepods/pod0a1b2c3d-0000-1111-2222-333344445555", "c0ffee"),
        (
            "kubepods.slice/kubepods-pod0a1b2c3d_0000_1111_2222_333344445555.slice",
            "cri-containerd-c0ffee.scope",
        ),
        (
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0a1b2c3d_0000_1111_2222_333344445555.slice",
            "crio-c0ffee.scope",
        ),
    ],
)
def test_each_kubelets_names_are_known(tmp_path: Path, pod: str, container: str) -> None:
    """Both cgroup drivers, all classes, three runtimes."""
    (tmp_path / "cgroup.controllers").write_text("")
    (tmp_path / pod / container).mkdir(parents=True)
    (tmp_path / pod / "crio-conmon-c0ffee.scope").mkdir()
    (found,) = pods(hierarchy(str(tmp_path)))
    assert (found.uid, list(found.containers)) == (UID, ["c0ffee"])


def test_the_api_servers_list_names_pods_and_containers() -> None:
    """As Kubernetes writes them: the id behind the runtime's name."""
    item = {
        "metadata": {"uid": "u1", "namespace": "shop", "name": "orders-1"},
        "spec": {"volumes": [{"name": "v", "hostPath": {"path": "/mnt"}}], "containers": [{"name": "app"}]},
        "status": {
            "containerStatuses": [
                {
                    "name": "app",
                    "containerID": "cri-o://new",
                    "lastState": {"terminated": {"containerID": "cri-o://old", "reason": "OOMKilled"}},
                }
            ]
        },
    }
    asked = []

    def ask(method: str, path: str, body: object) -> dict[str, Any]:
        asked.append((method, path))
        return {"items": [item]}

    found = list_pods(ask, "node-1", "/mnt/dump")
    assert asked == [("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0")]
    pod = found["u1"]
    assert (pod.uses_volume, set(pod.containers), set(pod.killed)) == (True, {"old", "new"}, {"old"})
