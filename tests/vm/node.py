"""A node in the virtual machine: runs containers as the manifests describe them, by runc, as kubelet and CRI-O would.

Users, capabilities, SELinux type and level, limits, mounts and propagation come from the manifests; an image is
the machine's root file system mounted once more with the label of image layers, under an overlay with the container's
label, as CRI-O does it.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.harness.manifests import Container, containers, objects
from tests.vm.machine import Done, Machine

PV = "/var/pv"  # the PersistentVolume: a file system of its own
KUBEPODS = "/kubepods.slice"
PYTHON = ("/usr/bin/python3", "/project/scripts/dumpagent")
JAVA = "/opt/jdk/bin/java"
# Source: CRI-O and containerd: what a container has before a manifest drops or adds any.
_ALL_CAPABILITIES = (
    "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN", "DAC_OVERRIDE",
    "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE", "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE",
    "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID",
    "SYSLOG", "SYS_ADMIN", "SYS_BOOT", "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
)  # fmt: skip
_PROPAGATION = {"Bidirectional": "rshared", "HostToContainer": "rslave", None: "rprivate"}
# An emulated CPU is about ten times slower than the one that limits are chosen for: so is what a limit of it gives.
CPU_FACTOR = 10
_UNITS = {"m": 0.001, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def manifest(workload: str, container: str) -> Container:
    """Give one container of the manifests."""
    (found,) = (
        each
        for each in containers()
        if (each.workload["metadata"]["name"], each.spec["name"]) == (workload, container)
    )
    return found


def memory_watch() -> Container:
    """Give the container of the optional memory watch."""
    (workload,) = (each for each in objects("memory-watch/daemonset.yaml") if each["kind"] == "DaemonSet")
    return Container(workload, workload["spec"]["template"]["spec"]["containers"][0], init=False)


def quantity(text: str) -> float:
    """Give a Kubernetes quantity as a number: 200m, 256Mi."""
    found = re.fullmatch(r"([0-9.]+)(m|Ki|Mi|Gi)?", text)
    assert found, text
    return float(found[1]) * _UNITS.get(found[2], 1)


@dataclass(frozen=True)
class Pod:
    """What the cluster fills in: identity, the namespace's SELinux level if the pod sets none, which volumes it gets."""

    name: str
    uid: str
    namespace: str = "memory-leak-demo"
    level: str = "s0:c5,c9"  # as a namespace's annotation openshift.io/sa.scc.mcs gives it
    volumes: Mapping[str, str] = field(
        default_factory=dict
    )  # the manifest's volume name -> a path of the node

    @property
    def cgroup(self) -> str:
        """Give its cgroup, in the systemd driver's names. Source: Kubernetes, pkg/kubelet/cm/cgroup_manager_linux.go."""
        return f"{KUBEPODS}/kubepods-burstable.slice/kubepods-burstable-pod{self.uid.replace('-', '_')}.slice"


class Node:
    """Runs containers in one machine. `env` is what every agent gets over its manifest's values."""

    def __init__(self, machine: Machine, env: Mapping[str, str]) -> None:
        self.machine, self._env = machine, dict(env)

    def prepare(self, *, size_mib: int = 512) -> None:
        """Do it once per machine; a second call changes nothing."""
        if self.machine.run(["mountpoint", "-q", PV]).code != 0:
            self._prepare(size_mib)
        self.machine.run(
            ["dmesg", "--clear"]
        )  # what the machine's own start was refused is no concern of ours

    def _prepare(self, size_mib: int) -> None:
        """Make the PersistentVolume, labelled as a kubelet's runtime does for the manager's pod: its level is s0."""
        self.machine.sh(
            "mkdir -p /run/image; mount -o 'ro,context=\"system_u:object_r:container_ro_file_t:s0\"' /dev/vdc /run/image;"
            "chcon -R system_u:object_r:container_ro_file_t:s0 /var/layer;"
            f"mkdir -p {PV} /run/pods; mkdir -p /sys/fs/cgroup{KUBEPODS}/kubepods-burstable.slice;"
            f"echo '+cpu +memory +pids' > /sys/fs/cgroup{KUBEPODS}/cgroup.subtree_control;"
            f"echo '+cpu +memory +pids' > /sys/fs/cgroup{KUBEPODS}/kubepods-burstable.slice/cgroup.subtree_control;"
            f"truncate -s {size_mib}M /var/pv.img; mke2fs -q -t ext4 /var/pv.img; modprobe loop; modprobe overlay;"
            f"mount -o loop /var/pv.img {PV}; rmdir {PV}/lost+found; chown root:root {PV}; chmod 755 {PV}"
        )
        self.label(PV, "s0")

    def label(self, path: str, level: str, *, kind: str = "container_file_t") -> None:
        """Label a volume for the pods that use it."""
        self.machine.sh(f"chcon -R system_u:object_r:{kind}:{level} {path}")

    def config(
        self, pod: Pod, container: Container, argv: Sequence[str], env: Mapping[str, str]
    ) -> dict[str, Any]:
        """Give runc's configuration of a container. Source: OCI runtime specification, config.md, config-linux.md."""
        security = container.security
        selinux = {"type": "container_t", "level": pod.level, **security.get("seLinuxOptions", {})}
        capabilities = self._capabilities(security)
        uid, gid = int(security.get("runAsUser", 0)), int(security.get("runAsGroup", 0))
        limits = container.spec["resources"]["limits"]
        variables = {name: value for name, value in container.env().items() if value is not None}
        variables |= {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
            "PYTHONPATH": "/opt/python:/project",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        variables |= {"POD_NAME": pod.name, "POD_NAMESPACE": pod.namespace, "NODE_NAME": "vm-node"} | dict(
            env
        )
        for name, value in variables.items():
            variables[name] = re.sub(r"\$\((POD_NAME(?:SPACE)?)\)", lambda found: variables[found[1]], value)
        label = f"system_u:object_r:container_file_t:{selinux['level']}"
        return {
            "ociVersion": "1.0.2",
            "process": {
                "args": list(argv),
                "cwd": "/",
                "env": [f"{name}={value}" for name, value in variables.items()],
                "user": {"uid": uid, "gid": gid},
                "noNewPrivileges": not security.get("allowPrivilegeEscalation", True),
                # A uid other than 0 keeps none at an exec; Kubernetes has no ambient capabilities.
                "capabilities": {
                    "bounding": capabilities,
                    "effective": capabilities if uid == 0 else [],
                    "permitted": capabilities if uid == 0 else [],
                },
                "selinuxLabel": f"system_u:system_r:{selinux['type']}:{selinux['level']}",
            },
            "root": {"path": "rootfs", "readonly": bool(security.get("readOnlyRootFilesystem"))},
            "hostname": pod.name,
            "mounts": self._mounts(pod, container, label),
            "linux": {
                "mountLabel": label,
                "cgroupsPath": f"{pod.cgroup}/crio-{pod.name}-{container.spec['name']}.scope",
                "rootfsPropagation": "rshared" if security.get("privileged") else "rslave",
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")],
                "resources": {
                    "memory": {
                        "limit": int(quantity(limits["memory"])),
                        "swap": int(quantity(limits["memory"])),
                    },
                    "cpu": {
                        "quota": int(quantity(str(limits["cpu"])) * CPU_FACTOR * 100_000),
                        "period": 100_000,
                    },
                    "pids": {"limit": 4096},
                    "devices": [{"allow": bool(security.get("privileged")), "access": "rwm"}],
                },
            },
        }

    @staticmethod
    def _capabilities(security: Mapping[str, Any]) -> list[str]:
        if security.get("privileged"):
            return [f"CAP_{name}" for name in _ALL_CAPABILITIES]
        asked = security["capabilities"]
        assert asked["drop"] == ["ALL"], asked
        return [f"CAP_{name}" for name in asked.get("add", ())]

    def _mounts(self, pod: Pod, container: Container, label: str) -> list[dict[str, Any]]:
        mounts: list[dict[str, Any]] = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"]},
        ]  # fmt: skip
        volumes = {volume["name"]: volume for volume in container.pod.get("volumes", [])}
        for wanted in container.spec.get("volumeMounts", []):
            name, where = wanted["name"], wanted["mountPath"]
            if where == "/tmp" or "projected" in volumes.get(name, {}):
                continue
            if "emptyDir" in volumes.get(name, {}):
                source = f"/run/pods/{pod.name}/{name}"
                # The kubelet makes it, the runtime labels it for this pod.
                self.machine.sh(f"mkdir -p {source}; chmod 777 {source}; chcon {label} {source}")
            elif name in volumes and "hostPath" in volumes[name]:
                source = volumes[name]["hostPath"]["path"]
            else:
                source = pod.volumes[name]
            options = [
                "rbind",
                _PROPAGATION[wanted.get("mountPropagation")],
                "ro" if wanted.get("readOnly") else "rw",
            ]
            mounts.append({"destination": where, "type": "bind", "source": source, "options": options})
        return mounts

    def create(
        self, pod: Pod, container: Container, argv: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> str:
        """Make a container's bundle, without starting it; give its id."""
        name = f"{pod.name}-{container.spec['name']}"
        words = list(argv) or [*PYTHON, *container.words]
        config = self.config(pod, container, words, {**self._env, **(env or {})})
        bundle, label = f"/run/pods/{pod.name}/{container.spec['name']}", config["linux"]["mountLabel"]
        self.machine.sh(
            f"mkdir -p {bundle}/rootfs {bundle}/upper {bundle}/work;"
            f"mountpoint -q {bundle}/rootfs || mount -t overlay overlay -o"
            f" 'lowerdir=/var/layer:/run/image,upperdir={bundle}/upper,workdir={bundle}/work,context=\"{label}\"' {bundle}/rootfs"
        )
        self.machine.write(f"{bundle}/config.json", json.dumps(config))
        return name

    def start(
        self, pod: Pod, container: Container, argv: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> Running:
        """Start a container; its output goes into a log."""
        name = self.create(pod, container, argv, env)
        bundle = f"/run/pods/{pod.name}/{container.spec['name']}"
        # By pipes of the runtime's own, as conmon has them: a container may not write to the node's files.
        self.machine.sh(
            f"rm -f {bundle}/in; mkfifo {bundle}/in; (sleep 100000 > {bundle}/in 2>/dev/null &);"
            f" (cat {bundle}/in | runc run --bundle {bundle} {name} 2>&1 | cat >> {bundle}/log) < /dev/null > /dev/null 2>&1 &"
        )
        return Running(self.machine, name, bundle)

    def run(
        self, pod: Pod, container: Container, argv: Sequence[str] = (), *, timeout_s: float = 120.0
    ) -> Done:
        """Run a container to its end, as the kubelet runs init containers."""
        name = self.create(pod, container, argv)
        bundle = f"/run/pods/{pod.name}/{container.spec['name']}"
        done = self.machine.run(["runc", "run", "--bundle", bundle, name], timeout_s=timeout_s)
        self.machine.run(["runc", "delete", "--force", name])
        return done

    def denials(self) -> list[str]:
        """Give what SELinux has refused since the last question, and forget it."""
        said = self.machine.run(["dmesg", "--read-clear"]).out
        return [line for line in said.splitlines() if "avc:  denied" in line]


class Running:
    """A container that runs in the background."""

    def __init__(self, machine: Machine, name: str, bundle: str) -> None:
        self._machine, self.name, self._bundle = machine, name, bundle

    @property
    def log(self) -> str:
        """Give what it has printed so far."""
        return self._machine.read(f"{self._bundle}/log").decode(errors="replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give the lines of its log that tell of this event."""
        found = (json.loads(line) for line in self.log.splitlines() if line.startswith("{"))
        return [line for line in found if line.get("event") == name]

    def wait_for(self, text: str, *, timeout_s: float = 60.0) -> None:
        """Wait until it has printed `text`. Raises AssertionError with its whole log."""
        until = time.monotonic() + timeout_s
        while text not in (said := self.log):
            assert time.monotonic() < until, f"{self.name} did not say {text!r} within {timeout_s} s:\n{said}"
            time.sleep(0.5)

    def exec(self, argv: Sequence[str], *, timeout_s: float = 60.0) -> Done:
        """Run a program inside with the container's own user, label and capabilities, as an exec probe does."""
        return self._machine.run(["runc", "exec", self.name, *argv], timeout_s=timeout_s)

    def tell(self, line: str) -> None:
        """Give it one line on its standard input."""
        self._machine.sh(f"printf '%s\\n' {shlex.quote(line)} > {self._bundle}/in")

    def alive(self) -> bool:
        """Say whether it runs."""
        state = self._machine.run(["runc", "state", self.name])
        return state.code == 0 and json.loads(state.out)["status"] == "running"

    def stop(self, *, kill_signal: str = "TERM", timeout_s: float = 30.0) -> None:
        """End it as the kubelet does, and remove it."""
        self._machine.run(["runc", "kill", self.name, kill_signal])
        until = time.monotonic() + timeout_s
        while self.alive() and time.monotonic() < until:
            time.sleep(0.3)
        self._machine.run(["runc", "delete", "--force", self.name])
