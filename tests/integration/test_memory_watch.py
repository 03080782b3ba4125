"""Twenty kills by this machine's own kernel, of five kinds, each told rightly and within 5 s, or not at all.

Real cgroups with real limits, real JVMs. The kubelet is played: the container's cgroup is removed as soon as its last
process has ended, and the list of pods (a fake) then says OOMKilled, as the API server does.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dumpagent.memory_watch.cgroups import Hierarchy, hierarchy
from dumpagent.memory_watch.pods import PodSpec
from dumpagent.memory_watch.watcher import MemoryWatcher
from dumpagent.observe.events import Event
from dumpagent.observe.events.memory import ContainerKilled
from tests.harness.children import end, start
from tests.harness.jvm import JAR, Jdk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
MIB = 1 << 20
LIMIT_MIB = 192
_TOLD_WITHIN_S = 5.0


class Container:
    """A container's cgroup with a process in it; `lines` is what it prints."""

    def __init__(self, path: Path, version: int, argv: list[str]) -> None:
        self.path = path
        path.mkdir(parents=True)
        limit = "memory.max" if version == 2 else "memory.limit_in_bytes"
        (path / limit).write_text(str(LIMIT_MIB * MIB))
        swap = path / ("memory.swap.max" if version == 2 else "memory.memsw.limit_in_bytes")
        if swap.exists():
            swap.write_text("0" if version == 2 else str(LIMIT_MIB * MIB))
        # A shell first: what is charged before the process is in its cgroup is charged elsewhere.
        script = f'echo $$ > {path}/cgroup.procs; exec "$@"'
        self.process = start(
            ["/bin/sh", "-c", script, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def expect(self, text: str) -> None:
        assert self.process.stdout
        said = b""
        for line in self.process.stdout:
            said += line
            if text.encode() in line:
                return
        raise AssertionError(f"it ended without {text!r}: {said.decode(errors='replace')}")

    def tell(self, line: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def remove(self) -> None:
        """Remove the cgroup as the runtime does; a process that is left is ended first."""
        until = time.monotonic() + 20
        while self.path.exists():
            for pid in (self.path / "cgroup.procs").read_text().split():
                os.kill(int(pid), 9)
            try:
                self.path.rmdir()
            except OSError:
                assert time.monotonic() < until, f"{self.path} is still in use"
                time.sleep(0.02)


class PlayedNode:
    """A pod's cgroup, the watcher in its thread, and the list of pods."""

    def __init__(self, tree: Hierarchy, name: str, dumps: Path) -> None:
        self.tree, self.uid, self.id = tree, "0a0b0c0d-1111", "c1"
        self.pod = Path(tree.root) / "kubepods" / "burstable" / f"pod{self.uid}"
        self.container_path = self.pod / self.id
        self.spec: dict[str, Any] | None = None  # nothing is listed of a pod that is not there yet
        self.killed: frozenset[str] = frozenset()
        self.kills: list[tuple[float, dict[str, Any]]] = []
        self.faults: list[BaseException] = []
        self._stop = threading.Event()
        self._watcher = MemoryWatcher(tree, dump_root=str(dumps), list_pods=self._list, tell=self._hear)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _list(self) -> dict[str, PodSpec]:
        if self.spec is None:
            return {}
        return {
            self.uid: PodSpec(
                self.uid, "shop", "orders-1", True, (self.spec,), {self.id: self.spec}, self.killed
            )
        }

    def _hear(self, event: Event, /) -> None:
        if isinstance(event, ContainerKilled):
            self.kills.append((time.monotonic(), event.fields()))

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._watcher.step()
                self._stop.wait(0.5)
        except BaseException as error:  # noqa: BLE001 - told by the test
            self.faults.append(error)

    def run(self, argv: list[str], *, options: str) -> Container:
        limits = {"limits": {"memory": f"{LIMIT_MIB}Mi"}}
        self.spec = {
            "name": "app",
            "resources": limits,
            "env": [{"name": "JAVA_TOOL_OPTIONS", "value": options}],
        }
        return Container(self.container_path, self.tree.version, argv)

    def told_of(self, container: Container, *, main_ends: bool = True) -> dict[str, Any]:
        """Give what was told of the kill, once it is; the container is removed as a runtime does."""
        if main_ends:
            assert container.process.wait(60) == -9
            killed_at = time.monotonic()
            container.remove()
            self.killed = frozenset({self.id})
        else:
            killed_at = time.monotonic()
        while not self.kills and not self.faults and time.monotonic() - killed_at < 4 * _TOLD_WITHIN_S:
            time.sleep(0.02)
        assert self.faults == []
        assert self.kills, "nothing was told"
        ((told_at, kill),) = self.kills
        assert told_at - killed_at < _TOLD_WITHIN_S
        return kill

    def close(self) -> None:
        self._stop.set()
        self._thread.join(30)
        for folder in (
            self.container_path,
            self.pod,
            self.pod.parent,
            self.pod.parent.parent,
            Path(self.tree.root),
        ):
            if folder.exists():
                for pid in (folder / "cgroup.procs").read_text().split():
                    os.kill(int(pid), 9)
                    time.sleep(0.1)
                folder.rmdir()
        assert self.faults == []


@pytest.fixture
def node(tmp_path: Path) -> Iterator[PlayedNode]:
    if os.geteuid() != 0:
        pytest.skip("makes cgroups: needs root")
    mounted = hierarchy()
    own = Path(mounted.root) / f"dumpagent-test-{os.getpid()}"
    own.mkdir()
    tree = Hierarchy(str(own), mounted.version)
    node = PlayedNode(tree, "app", tmp_path)
    yield node
    node.close()


def _jvm(jdk: Jdk, xmx_mib: int, *options: str) -> list[str]:
    return [
        str(jdk.java),
        f"-Xmx{xmx_mib}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        *options,
        "-cp",
        str(JAR),
        "LeakyApp",
    ]


@pytest.mark.parametrize("round_", range(4))
def test_a_heap_above_the_limit(node: PlayedNode, any_jdk: Jdk, round_: int) -> None:
    container = node.run(_jvm(any_jdk, 512), options="-Xmx512m")
    container.expect("> ready")
    container.tell("fill 400")
    kill = node.told_of(container)
    assert (kill["cause"], kill["namespace"], kill["pod"]) == ("heap_above_limit", "shop", "orders-1"), kill


@pytest.mark.parametrize("command", ["native", "direct"])
@pytest.mark.parametrize("round_", range(4))
def test_memory_that_is_no_heap(node: PlayedNode, any_jdk: Jdk, command: str, round_: int) -> None:
    """malloc and direct buffers: the heap never was full, so no OutOfMemoryError and no dump could come."""
    container = node.run(_jvm(any_jdk, 48, "-XX:MaxDirectMemorySize=2g"), options="-Xmx48m")
    container.expect("> ready")
    container.tell(f"{command} 400")
    kill = node.told_of(container)
    assert kill["cause"] == "native_memory", str(kill)
    assert "limit 192 MiB, heap at most 48 MiB (-Xmx48m)" in kill["reason"]
    assert "direct buffers" in kill["reason"]


@pytest.mark.parametrize("round_", range(4))
def test_a_process_beside_the_jvm(node: PlayedNode, round_: int) -> None:
    """The kernel takes the larger one; the container lives on."""
    greedy = "import time\nkept = []\nfor i in range(400): kept.append(b'x' * (1 << 20)); time.sleep(0.01)"
    main = f"import subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {greedy!r}])\nprint('survived', flush=True)\ntime.sleep(600)"
    container = node.run([sys.executable, "-c", main], options="-Xmx48m")
    try:
        container.expect("survived")
        kill = node.told_of(container, main_ends=False)
        assert (kill["cause"], kill["lives_on"]) == ("other_process", True)
    finally:
        end(container.process, grace_s=0)
        container.remove()


@pytest.mark.parametrize("round_", range(4))
def test_page_cache_at_the_limit_is_no_kill(node: PlayedNode, tmp_path: Path, round_: int) -> None:
    """Twice the limit is read and written: the kernel gives it back, and nothing is told; nor of the stop after it."""
    big = tmp_path / "big"
    code = (
        f"f = open({str(big)!r}, 'wb')\n"
        "import os\n"
        f"for i in range({2 * LIMIT_MIB}):\n    f.write(b'x' * (1 << 20))\n    i % 32 or os.fsync(f.fileno())\n"
        "f.close()\n"
        f"f = open({str(big)!r}, 'rb')\n"
        "while f.read(1 << 20): pass\n"
        "print('done', flush=True)\n"
        "import time; time.sleep(600)"
    )
    container = node.run([sys.executable, "-c", code], options="-Xmx48m")
    container.expect("done")
    time.sleep(1.5)
    end(
        container.process, grace_s=0
    )  # as the kubelet does after the grace period: SIGKILL, but not by the kernel
    container.remove()
    time.sleep(2.5)
    big.unlink()
    assert node.kills == []


def test_a_jvm_that_may_start_no_more_threads_writes_no_dump(any_jdk: Jdk, tmp_path: Path) -> None:
    """What `pids_limit_reached` says of HotSpot: an OutOfMemoryError, HeapDumpOnOutOfMemoryError set, and no dump."""
    mounted = Path("/sys/fs/cgroup/pids")
    if os.geteuid() != 0:
        pytest.skip("makes cgroups: needs root")
    own = (mounted if mounted.is_dir() else Path("/sys/fs/cgroup")) / f"dumpagent-test-{os.getpid()}"
    own.mkdir()
    options = ["-XX:+HeapDumpOnOutOfMemoryError", f"-XX:HeapDumpPath={tmp_path}"]
    script = f'echo $$ > {own}/cgroup.procs; exec "$@"'
    process = start(
        ["/bin/sh", "-c", script, "sh", *_jvm(any_jdk, 48, *options)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert process.stdin
        assert process.stdout
        while b"> ready" not in process.stdout.readline():
            assert process.poll() is None
        (own / "pids.max").write_text((own / "pids.current").read_text())
        process.stdin.write(b"oom payment-7\n")
        process.stdin.flush()
        said = b""
        while b"OutOfMemoryError" not in said:
            said += process.stdout.readline()
            assert process.poll() is None, said
        assert b"native thread" in said
        assert "max 0" not in (own / "pids.events").read_text()
        time.sleep(1)
        assert list(tmp_path.iterdir()) == []
    finally:
        end(process, grace_s=0)
        process.wait()
        own.rmdir()
