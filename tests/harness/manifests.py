"""The manifests as tests read them: objects, the containers in them, and what each container runs."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
FOLDER = PROJECT / "manifests"
# The order in which the guide applies them.
FILES = (
    "openshift-rbac.yaml",
    "statefulset-volume.yaml",
    "s3-uploader-statefulset.yaml",
    "deployment.yaml",
    "openshift-route.yaml",
)
OTHER_FILES = ("node-cleanup.yaml",)
MONITORING_FILES = tuple(
    sorted(
        f"monitoring/{path.name}"
        for path in (FOLDER / "monitoring").glob("*.yaml")
        if path.name != "kustomization.yaml"
    )
)
WORKLOADS = ("StatefulSet", "Deployment", "DaemonSet")
# What upload hands on to the SDK, which reads it itself.
SDK_PREFIX = "AWS_"

Object = dict[str, Any]


@functools.cache
def objects(*files: str) -> list[Object]:
    """Give every object of these files, in order; of all files if none is named. Read once: change none."""
    return [
        document
        for file in files or FILES + OTHER_FILES
        for document in yaml.safe_load_all((FOLDER / file).read_text())
        if document
    ]


def named(kind: str, name: str, *files: str) -> Object:
    """Give the one object of this kind and name in these files; in all files if none is named."""
    (found,) = (o for o in objects(*files) if o["kind"] == kind and o["metadata"]["name"] == name)
    return found


def workloads() -> list[Object]:
    """Give every object that makes pods."""
    return [o for o in objects() if o["kind"] in WORKLOADS]


@dataclass(frozen=True)
class Container:
    """One container of a workload's pod template; `init` says that it runs before the others."""

    workload: Object
    spec: Object
    init: bool

    def __str__(self) -> str:
        return f"{self.workload['metadata']['name']}/{self.spec['name']}"

    @property
    def pod(self) -> Object:
        """Give the pod spec around it."""
        spec: Object = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def words(self) -> list[str]:
        """Give what `dumpagent` is run with; empty if the container runs something else."""
        if "command" in self.spec or "/dumpagent" not in self.spec["image"]:
            return []
        return list(self.spec["args"])

    @property
    def security(self) -> Object:
        """Give its security context with what it inherits from the pod."""
        return {**self.pod.get("securityContext", {}), **self.spec.get("securityContext", {})}

    def env(self) -> dict[str, str | None]:
        """Give its variables with their values; None for what the cluster fills in."""
        values: dict[str, str | None] = {}
        for source in self.spec.get("envFrom", []):
            for reference, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                if reference in source:
                    held = named(kind, source[reference]["name"])
                    values |= held.get("data", {}) | held.get("stringData", {})
        return values | {entry["name"]: entry.get("value") for entry in self.spec.get("env", [])}


def first_container(workload: Object) -> Container:
    """Give the container of a workload that has one, or its first."""
    return Container(workload, workload["spec"]["template"]["spec"]["containers"][0], init=False)


def containers() -> Iterator[Container]:
    """Give every container of every workload."""
    for workload in workloads():
        pod = workload["spec"]["template"]["spec"]
        for spec in pod.get("initContainers", []):
            yield Container(workload, spec, init=True)
        for spec in pod["containers"]:
            yield Container(workload, spec, init=False)
