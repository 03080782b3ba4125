"""cgroup v2: the agent reads its limits there, and kills of five kinds are told rightly within two looks.

The watcher runs in the container of manifests/memory-watch: its user, no capability, SELinux enforcing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.vm.machine import Machine
from tests.vm.node import CPU_FACTOR, JAVA, PYTHON, Node, Pod, Running, manifest, memory_watch

pytestmark = [pytest.mark.vm, pytest.mark.e2e, pytest.mark.timeout(3600)]
APP = manifest("memory-leak-app", "memory-leak-app")
APP_POD = Pod("memory-leak-app-9", "0e0e1111", level="s0:c11,c22")
WATCH_POD = Pod("heap-dump-memory-watch-x", "0f0f2222", level="s0:c5,c9")
_LONG_S = 900.0
# When the kernel last killed, in seconds since the machine was started.
_LAST_KILL = "dmesg | grep 'Killed process' | tail -n 1 | sed -E 's/^\\[ *([0-9.]+)\\].*/\\1/'"


@pytest.fixture(scope="module")
def node(machine: Machine) -> Node:
    node = Node(machine, {"METRICS_PORT": "0"})
    node.prepare()
    # As the volume's manager leaves the node's own directory.
    machine.sh("mkdir -p /mnt/dump; chmod 1777 /mnt/dump")
    node.label("/mnt/dump", "s0")
    return node


@pytest.fixture
def watch(node: Node) -> Iterator[Running]:
    argv = ["/usr/bin/python3", "-u", "/project/tests/vm/watch_inside.py", APP_POD.uid, "-Xmx48m"]
    running = node.start(WATCH_POD, memory_watch(), argv)
    running.wait_for("memory_looked", timeout_s=_LONG_S)
    yield running
    running.stop(kill_signal="KILL")
    node.machine.sh(
        f"rm -f /run/pods/{WATCH_POD.name}/memory-watch/log /run/pods/{APP_POD.name}/memory-leak-app/log"
    )


def _app(node: Node, *argv: str) -> Running:
    app = node.start(APP_POD, APP, argv, env={"JAVA_TOOL_OPTIONS": ""})
    app.wait_for("ready", timeout_s=_LONG_S)
    return app


def _jvm(node: Node, xmx_mib: int, *options: str) -> Running:
    jar = "/project/tests/harness/java/leaky-app.jar"
    return _app(
        node,
        JAVA,
        f"-Xmx{xmx_mib}m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        *options,
        "-cp",
        jar,
        "LeakyApp",
    )


def _kill(node: Node, watch: Running) -> dict[str, Any]:
    """Wait for the kernel's kill, then for the watcher's word; give it.

    It must come with the second look after the killed process has gone, at the latest; in an emulated machine its end
    takes seconds, and until then nobody can say whether the container outlives it. Looks are counted, by the machine's
    own clock: an emulated machine beside other work is as slow as it is.
    """
    events = f"/sys/fs/cgroup{APP_POD.cgroup}/memory.events"
    node.machine.wait_for(f"grep -q 'oom_kill [1-9]' {events}", timeout_s=_LONG_S, every_s=0.1)
    watch.wait_for("container_killed", timeout_s=_LONG_S)
    (kill,) = watch.events("container_killed")
    clocks = "/usr/bin/python3 -c 'import time; print(time.time() - time.monotonic())'"
    since_boot_s, booted_at = (float(word) for word in node.machine.sh(f"{_LAST_KILL}; {clocks}").split())
    killed_at = booted_at + since_boot_s
    looks = watch.events("memory_looked")
    before = [look["processes"] for look in looks if look["at"] <= killed_at][-1]
    since = [look for look in looks if killed_at < look["at"] < kill["at"]]
    assert len([look for look in since if look["processes"] < before]) <= 2, (before, killed_at, kill, since)
    return kill


@pytest.fixture
def pod_ends(node: Node) -> Iterator[None]:
    yield
    node.machine.run(["runc", "delete", "--force", f"{APP_POD.name}-memory-leak-app"])
    node.machine.run(["sh", "-c", f"sleep 3; rmdir /sys/fs/cgroup{APP_POD.cgroup}"])


def test_the_agent_reads_its_limits_from_version_2(node: Node) -> None:
    """memory.max and cpu.max of the uploader's own container, as the manifest sets them."""
    uploader = manifest("heap-dump-s3-uploader", "s3-uploader")
    code = "from dumpagent.kernel.cgroup import *; print(memory_limit_bytes(), cpu_limit_cores())"
    said = (
        node.run(Pod("limits", "0a0a3333"), uploader, [PYTHON[0], "-c", code], timeout_s=_LONG_S).check().out
    )
    assert said.split() == [str(256 << 20), str(0.2 * CPU_FACTOR)]


def test_a_heap_above_the_limit(node: Node, watch: Running, pod_ends: None) -> None:
    """The watcher believes the spec (48 MiB); the kernel's figures say that more was taken."""
    watch.stop(kill_signal="KILL")
    # Its log goes: a look of the one that was stopped says nothing of the next one.
    node.machine.sh(f"rm -f /run/pods/{WATCH_POD.name}/memory-watch/log")
    argv = ["/usr/bin/python3", "-u", "/project/tests/vm/watch_inside.py", APP_POD.uid, "-Xmx512m"]
    watch = node.start(WATCH_POD, memory_watch(), argv)
    watch.wait_for("memory_looked", timeout_s=_LONG_S)
    app = _jvm(node, 512)
    app.tell("fill 400")
    kill = _kill(node, watch)
    assert kill["cause"] == "heap_above_limit"
    assert "limit 256 MiB, heap at most 512 MiB" in kill["reason"]


@pytest.mark.parametrize("command", ["native", "direct"])
def test_memory_that_is_no_heap(node: Node, watch: Running, pod_ends: None, command: str) -> None:
    """malloc and direct buffers."""
    app = _jvm(node, 48, "-XX:MaxDirectMemorySize=2g")
    app.tell(f"{command} 400")
    kill = _kill(node, watch)
    assert (kill["cause"], kill["pod"]) == ("native_memory", APP_POD.name)
    assert "limit 256 MiB, heap at most 48 MiB" in kill["reason"]


def test_a_process_beside_the_jvm(node: Node, watch: Running, pod_ends: None) -> None:
    """The kernel takes the larger one; the container lives on."""
    greedy = "import time\nkept = []\nfor i in range(400): kept.append(b'x' * (1 << 20)); time.sleep(0.02)"
    main = f"import subprocess, sys, time\nprint('ready', flush=True)\nsubprocess.run([sys.executable, '-c', {greedy!r}])\ntime.sleep(600)"
    _app(node, "/usr/bin/python3", "-c", main)
    kill = _kill(node, watch)
    assert (kill["cause"], kill["lives_on"]) == ("other_process", True)


def test_a_dump_that_was_begun_is_seen_whatever_its_categories(
    node: Node, watch: Running, pod_ends: None
) -> None:
    """The pod's own directory has the application's level: the watch must be allowed to look at it."""
    node.denials()
    own = f"/mnt/dump/{APP_POD.namespace}_{APP_POD.name}"
    main = (
        f"import os, time\nos.mkdir({own!r}, 0o700)\nopen({own + '/java_pid1.hprof'!r}, 'w').close()\nprint('ready', flush=True)\n"
        "kept = []\nwhile True: kept.append(b'x' * (1 << 20)); time.sleep(0.02)"
    )
    _app(node, "/usr/bin/python3", "-c", main)
    watch.wait_for("kill_left_dump", timeout_s=_LONG_S)
    assert watch.events("container_killed") == []
    assert node.denials() == []
    node.machine.sh(f"rm -r {own}")


def test_page_cache_at_the_limit_and_a_stop_tell_nothing(node: Node, watch: Running, pod_ends: None) -> None:
    """memory.events counts `max` again and again, and no kill."""
    node.machine.sh(
        "umount /mnt/dump 2>/dev/null || true; chmod 777 /var/pv; mkdir -p /mnt/big; mount --bind /var/pv /mnt/big"
    )
    script = "echo ready; dd if=/dev/zero of=/mnt/big/big bs=1M count=400 2>/dev/null; cat /mnt/big/big > /dev/null; echo done; sleep 600"
    app = _app(node, "/bin/sh", "-c", script)
    app.wait_for("done", timeout_s=_LONG_S)
    events = node.machine.sh(f"cat /sys/fs/cgroup{APP_POD.cgroup}/crio-*/memory.events")
    assert int(re.findall(r"^max (\d+)", events, re.MULTILINE)[0]) > 0, events
    app.stop(kill_signal="KILL")
    time.sleep(5)
    node.machine.sh("rm -f /mnt/big/big; umount /mnt/big; rmdir /mnt/big", timeout_s=_LONG_S)
    assert watch.events("container_killed") == []
    assert node.denials() == []
