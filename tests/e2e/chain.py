"""The chain under test: what the guide has brought up, and what can be done to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster import Cluster, Failed, wait_for
from tests.harness import guide, manifests
from tests.harness.stores.server import is_dump_key

AGENT, NAMESPACE = "heap-dumps", "memory-leak-demo"  # where the daemons are, and the demo application
REGISTRY = "image-registry.openshift-image-registry.svc:5000/heap-dumps"
GUIDE = manifests.PROJECT / "docs" / "openshift.md"
# The sections that are run, in this order; a fast test compares them with the guide.
SECTIONS = (
    "Your values",
    "Your overlay",
    "Apply",
    "Verify",
    "Trigger a heap dump and follow it",
    "Applications of another namespace",
    "Monitoring",
    "Uninstalling",
)
MANAGER, UPLOADER = "dump-volume-manager-0", "heap-dump-s3-uploader-0"
PREFIX = "heap-dumps/"


@dataclass(frozen=True)
class Stored:
    """One object of the store."""

    key: str
    size_bytes: int
    metadata: dict[str, str]


class Chain:
    """The chain on a cluster; `folder` holds the copy of the manifests that the guide edits."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        shutil.copytree(manifests.FOLDER, folder / "manifests")
        if cluster.is_older_than_1_21():
            for file in (folder / "manifests").rglob("*.yaml"):
                file.write_text(
                    file.read_text().replace("apiVersion: policy/v1\n", "apiVersion: policy/v1beta1\n")
                )
        shim = folder / "bin" / "oc"
        shim.parent.mkdir()
        shim.write_text("#!/bin/sh\nexec " + " ".join(map(str, cluster.kubectl_argv)) + ' "$@"\n')
        shim.chmod(0o755)

    def follow_guide(self, section: str, *, timeout_s: float = 400) -> str:
        """Run a section of the guide word by word; give what it printed. Raises Failed."""
        assert section in SECTIONS
        store = self.cluster.store
        values = {
            "S3_BUCKET": self.cluster.bucket,
            "S3_ENDPOINT_URL": store.endpoint_url,
            "AWS_DEFAULT_REGION": store.region,
            "AWS_ACCESS_KEY_ID": store.access_key,
            "AWS_SECRET_ACCESS_KEY": store.secret_key,
        }
        done = subprocess.run(
            ["bash", "-c", guide.script(GUIDE, section, values).replace(REGISTRY, os.environ.get("E2E_REGISTRY") or REGISTRY)],
            cwd=self.folder,
            env={**os.environ, **values, "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            timeout=timeout_s,
        )  # fmt: skip
        if done.returncode:
            raise Failed(f"the guide's {section!r} ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    # What is there

    def pod(self, name: str) -> manifests.Object:
        """Give a pod of the chain. Raises Failed."""
        return self.cluster.get("-n", namespace_of(name), "pod", name)

    def app_pod(self, namespace: str = NAMESPACE) -> str:
        """Give the name of the application's pod, once one runs and is ready."""

        def look() -> str:
            pods = self.cluster.get("-n", namespace, "pods", "-l", "app=memory-leak-app")["items"]
            ready = [
                p["metadata"]["name"]
                for p in pods
                if is_ready(p) and not p["metadata"].get("deletionTimestamp")
            ]
            return ready[0] if ready else ""

        return wait_for("ready: the application", look)

    def stored(self, pod: str) -> list[Stored]:
        """Give the objects that the dumps of this pod became."""

        def look(s3: Any) -> list[Stored]:
            found = s3.list_objects_v2(Bucket=self.cluster.bucket, Prefix=PREFIX).get("Contents", [])
            heads = [
                (o["Key"], s3.head_object(Bucket=self.cluster.bucket, Key=o["Key"]))
                for o in found
                if pod in o["Key"] and is_dump_key(o["Key"])
            ]
            return [Stored(key, head["ContentLength"], head["Metadata"]) for key, head in heads]

        return self.cluster.ask_store(look)

    def has_object(self, key: str) -> bool:
        """Say whether the store has an object of exactly this key."""
        return self.cluster.ask_store(
            lambda s3: s3.list_objects_v2(Bucket=self.cluster.bucket, Prefix=key).get("KeyCount", 0) > 0
        )

    def open_uploads(self) -> list[str]:
        """Give the keys that have an unfinished upload."""
        return self.cluster.ask_store(
            lambda s3: [
                u.get("Key", "")
                for u in s3.list_multipart_uploads(Bucket=self.cluster.bucket, Prefix=PREFIX).get(
                    "Uploads", []
                )
            ]
        )

    def download(self, key: str, to: Path) -> None:
        """Write an object into a file."""
        self.cluster.ask_store(
            lambda s3: s3.download_file(self.cluster.bucket, key, str(to), Config=_one_thread())
        )

    # What is done to it

    def leak(self, namespace: str = NAMESPACE) -> None:
        """Drive the application into its OutOfMemoryError; comes back when the JVM is gone."""
        with contextlib.suppress(Failed, subprocess.TimeoutExpired):
            self.cluster.kubectl(
                *(
                    "get",
                    "--raw",
                    f"/api/v1/namespaces/{namespace}/services/memory-leak-service:http/proxy/leak?mb=1000",
                ),
                timeout_s=150,
            )

    def wait_ready(self, pod: str, *, ready: bool = True, timeout_s: float = 90, not_uid: str = "") -> None:
        """Wait until the kubelet says that a pod is ready, or is not; `not_uid` tells the one before it."""

        def look() -> bool:
            found = self.pod(pod)
            return found["metadata"]["uid"] != not_uid and is_ready(found) is ready

        wait_for(f"{'' if ready else 'un'}ready: {pod}", look, timeout_s=timeout_s)

    def wait_stored(self, pod: str, count: int = 1, *, timeout_s: float = 120) -> list[Stored]:
        """Wait until the dumps of a pod are in the store; give them."""

        def look() -> list[Stored]:
            found = self.stored(pod)
            return found if len(found) >= count else []

        return wait_for(f"stored: {count} dumps of {pod}", look, timeout_s=timeout_s)

    def pids(self, command: str) -> str:
        """Give the node's numbers of the processes whose command line has `command` in it, in one line."""
        # The bracket keeps the search from finding itself.
        return " ".join(self.cluster.on_node(f"pgrep -f '[{command[0]}]{command[1:]}'").split())

    @contextmanager
    def stopped(self, command: str) -> Iterator[None]:
        """Let these processes stand still while the block runs, as a node that is out of CPU would."""
        pids = self.pids(command)
        self.cluster.on_node(f"kill -STOP {pids}")
        try:
            yield
        finally:
            self.cluster.on_node(f"kill -CONT {pids}")

    def is_mounted(self) -> bool:
        """Say whether the node has something mounted at /mnt/dump."""
        # RHCOS calls it /var/mnt/dump.
        return " /mnt/dump " in self.cluster.on_node("cat /proc/self/mountinfo").replace("/var/mnt", "/mnt")


def namespace_of(pod: str) -> str:
    """Say which namespace a pod of the chain is in, by its name."""
    return AGENT if pod in (MANAGER, UPLOADER) else NAMESPACE


def is_ready(pod: manifests.Object) -> bool:
    """Say whether the pod's condition Ready is true."""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def restarts(pod: manifests.Object) -> int:
    """Say how often the pod's containers were started again."""
    return sum(s["restartCount"] for s in pod["status"]["containerStatuses"])


def _one_thread() -> Any:
    from boto3.s3.transfer import TransferConfig

    return TransferConfig(use_threads=False)
