"""Which pod a process belongs to, as the kernel tells it under each runtime and cgroup version."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dumpagent.errors import Refused
from dumpagent.trigger.processes import Jvm, NoHotspot, ProcessGone, examine, held, pod_of

UID = "0a0b0c0d-1111-2222-3333-444455556666"
UNDERSCORED = UID.replace("-", "_")


@pytest.mark.parametrize(
    "cgroups",
    [
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UNDERSCORED}.slice/crio-abc.scope\n",
        f"0::/../../kubepods-pod{UNDERSCORED}.slice/cri-containerd-abc.scope\n",
        f"12:memory:/kubepods/besteffort/pod{UID}/abc\n11:pids:/kubepods/besteffort/pod{UID}/abc\n",
        f"1:name=systemd:/\n0::/kubelet/kubepods/pod{UID}/abc\n",
        f"0::/kubepods.slice/kubepods-pod{UNDERSCORED}.slice/crio-abc.scope/container\n",
    ],
)
def test_the_pod_of_a_process(cgroups: str) -> None:
    """systemd and cgroupfs drivers, of a cgroup namespace of its own or not."""
    assert pod_of(cgroups) == (UID, "abc")


@pytest.mark.parametrize(
    "cgroups", ["", "0::/system.slice/kubelet.service\n", "0::/user.slice/podman.scope\n"]
)
def test_a_process_of_no_pod(cgroups: str) -> None:
    """The node's own."""
    assert pod_of(cgroups)[0] == ""


def test_a_process_without_libjvm_is_no_jvm() -> None:
    """Whatever it is called."""
    folder = os.open("/proc/self", os.O_RDONLY)
    with pytest.raises(NoHotspot, match="no JVM"):
        examine(folder, os.getpid())
    os.close(folder)


def test_a_number_that_belongs_to_another_process_by_now_is_not_taken() -> None:
    """The start tells the two apart."""
    with pytest.raises(ProcessGone), held(Jvm(os.getpid(), 1, 1, 0, 0, "", 0, "java")):
        pass


def test_a_process_that_ends_while_it_is_held_is_gone() -> None:
    """Its directory is its own: a later process of this number is not read in its place."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with open(f"/proc/{child.pid}/stat") as stat:
        started = int(stat.read().rpartition(")")[2].split()[19])
    with held(Jvm(child.pid, started, child.pid, 0, 0, "", 0, "java")) as process:
        assert process.handles_quit() is False
        child.kill()
        child.wait()
        with pytest.raises(Refused):
            process.handles_quit()
