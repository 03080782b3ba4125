"""What the manifests say of a container: command, user, capabilities, mounts, limits, liveness; read when a test runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.attacks.versions import Version

_FILES = {
    "heap-dump-s3-uploader": "s3-uploader-statefulset.yaml",
    "dump-volume-manager": "statefulset-volume.yaml",
}
_UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@dataclass(frozen=True)
class Pod:
    """A workload's only container. `mounts`: its hostPath mounts, path in the container -> propagation."""

    args: tuple[str, ...]
    env: dict[str, str]
    uid: int
    privileged: bool
    may_gain: bool
    capabilities: tuple[str, ...]
    mounts: dict[str, str]
    cpus: float
    memory_bytes: int
    liveness_s: float

    def words(self) -> list[str]:
        """Give what gives a command this container's user and capabilities."""
        if self.privileged:
            return []
        caps = "".join(f",+{name.lower()}" for name in self.capabilities)
        words = ["setpriv", "--reuid", str(self.uid), "--regid", str(self.uid), "--clear-groups"]
        words += ["--inh-caps=-all", f"--bounding-set=-all{caps}"]
        return words + ([] if self.may_gain else ["--no-new-privs"])


def pod_of(version: Version, name: str) -> Pod:
    """Read the pod of the StatefulSet `name` from this version's manifests."""
    objects = list(_objects(version.folder / "manifests" / _FILES[name]))
    (workload,) = (o for o in objects if o["kind"] == "StatefulSet" and _has_args(o))
    spec = workload["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    security = {**spec.get("securityContext", {}), **container.get("securityContext", {})}
    probe = container["livenessProbe"]
    host_paths = {volume["name"] for volume in spec["volumes"] if "hostPath" in volume}
    limits = container["resources"]["limits"]
    return Pod(
        args=tuple(container["args"]),
        env=_env(container, objects),
        uid=security["runAsUser"],
        privileged=bool(security.get("privileged")),
        may_gain=bool(security.get("allowPrivilegeEscalation", True)),
        capabilities=_capabilities(security),
        mounts={
            mount["mountPath"]: mount.get("mountPropagation", "None")
            for mount in container["volumeMounts"]
            if mount["name"] in host_paths
        },
        cpus=_number(limits["cpu"]),
        memory_bytes=int(_number(limits["memory"])),
        liveness_s=probe["periodSeconds"] * probe["failureThreshold"],
    )


def _objects(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def _has_args(workload: dict[str, Any]) -> bool:
    return "args" in workload["spec"]["template"]["spec"]["containers"][0]


def _env(container: dict[str, Any], objects: list[dict[str, Any]]) -> dict[str, str]:
    values: dict[str, str] = {}
    for source in container.get("envFrom", []):
        wanted = source.get("configMapRef", {}).get("name")
        for held in objects:
            if held["kind"] == "ConfigMap" and held["metadata"]["name"] == wanted:
                values |= held["data"]
    return values | {e["name"]: e["value"] for e in container.get("env", []) if "value" in e}


def _capabilities(security: dict[str, Any]) -> tuple[str, ...]:
    held = security.get("capabilities", {})
    if not security.get("privileged"):
        assert held.get("drop") == ["ALL"], "a container that keeps the runtime's capabilities"
    return tuple(held.get("add", ()))


def _number(text: str) -> float:
    if text.endswith("m"):
        return int(text[:-1]) / 1000
    for unit, factor in _UNITS.items():
        if text.endswith(unit):
            return int(text.removesuffix(unit)) * factor
    return float(text)
