"""The cluster that the tests run on: kubectl, a shell on the node, and an S3 server that the node can reach.

With KUBECONFIG, any cluster: the images must be where the manifests (or E2E_REGISTRY) say, and the store is named by
E2E_S3_ENDPOINT, E2E_S3_BUCKET, E2E_S3_ACCESS_KEY and E2E_S3_SECRET_KEY. Without it, a kubelet on this machine: see `LocalCluster`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import subprocess
import sys
import time
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tests.e2e import kubelet
from tests.harness import schemas
from tests.harness.manifests import PROJECT, Object
from tests.harness.stores.server import StoreServer
from tools.kubectl import program

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

_T = TypeVar("_T")
_CLONE_NEWNET = 0x40000000  # Source: linux/sched.h
_OF_ANY_CLUSTER = ("E2E_S3_ENDPOINT", "E2E_S3_BUCKET", "E2E_S3_ACCESS_KEY", "E2E_S3_SECRET_KEY")
_NODE_SHELL = "node-shell"


class Failed(AssertionError):
    """A command on the cluster failed; the text is what it said."""


class Cluster(ABC):
    """A running cluster. Objects that the tests make for themselves are in the namespace `e2e`."""

    kubectl_argv: Sequence[str | Path]
    node_image = "localhost/busybox:1"

    def kubectl(self, *words: str, stdin: str | None = None, timeout_s: float = 120) -> str:
        """Give what kubectl printed. Raises Failed."""
        done = subprocess.run(
            [*self.kubectl_argv, *words],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        if done.returncode:
            raise Failed(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def get(self, *words: str) -> Object:
        """Give an object as a dict. Raises Failed."""
        found: Object = json.loads(self.kubectl("get", "-o", "json", *words))
        return found

    def is_older_than_1_21(self) -> bool:
        """Say whether the server knows PodDisruptionBudget by its beta version alone."""
        return "policy/v1\n" not in self.kubectl("api-versions")

    def on_node(self, command: str) -> str:
        """Give what a shell command printed on the node itself, as root in its mounts and processes. Raises Failed."""
        return self.kubectl(
            *(
                "exec",
                "-n",
                "e2e",
                _NODE_SHELL,
                "--",
                "nsenter",
                "-t",
                "1",
                "-m",
                "-p",
                "--",
                "/bin/sh",
                "-c",
                command,
            )
        )

    def start_node_shell(self) -> None:
        """Start the pod that `on_node` works through."""
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": _NODE_SHELL, "namespace": "e2e"},
            "spec": {
                "hostPID": True,
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"operator": "Exists"}],
                "containers": [
                    {
                        "name": "shell",
                        "image": self.node_image,
                        "command": ["sleep", "1000000"],
                        "securityContext": {"privileged": True},
                    }
                ],
            },
        }
        admits = {f"pod-security.kubernetes.io/{mode}": "privileged" for mode in ("enforce", "audit", "warn")}
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "e2e", "labels": admits}}
        for thing in (namespace, pod):
            self.kubectl("apply", "-f", "-", stdin=json.dumps(thing))
        self.kubectl("wait", "-n", "e2e", "--for=condition=Ready", "--timeout=60s", f"pod/{_NODE_SHELL}")

    @property
    @abstractmethod
    def store(self) -> StoreServer:
        """Give the S3 server, at the address under which pods reach it."""

    @property
    @abstractmethod
    def bucket(self) -> str:
        """Give the bucket that the dumps go to."""

    @abstractmethod
    def ask_store(self, question: Callable[[S3Client], _T]) -> _T:
        """Give the answer to a question to the store, asked from where it can be reached."""

    @abstractmethod
    def held_uploads(self) -> contextlib.AbstractContextManager[None]:
        """Let no part of an upload be answered while the block runs."""


@dataclass
class AnyCluster(Cluster):
    """The cluster that KUBECONFIG names."""

    node_image = os.environ.get("E2E_NODE_IMAGE", "localhost/busybox:1")
    kubectl_argv = (os.environ.get("E2E_KUBECTL", "kubectl"),)

    @property
    def store(self) -> StoreServer:
        environ = os.environ
        return StoreServer(
            "external",
            environ["E2E_S3_ENDPOINT"],
            environ["E2E_S3_ACCESS_KEY"],
            environ["E2E_S3_SECRET_KEY"],
        )

    @property
    def bucket(self) -> str:
        return os.environ["E2E_S3_BUCKET"]

    def ask_store(self, question: Callable[[S3Client], _T]) -> _T:
        return question(self.store.client())

    @contextmanager
    def held_uploads(self) -> Iterator[None]:
        """Do nothing: a store that is not ours cannot be held, so the kill may come after the upload."""
        yield


class LocalCluster(Cluster):
    """A real API server and kubelet in namespaces of this machine, by the scripts in kubelet/; ended by `down`."""

    bucket = "heap-dumps"
    _address, _port = "10.99.0.1", 5000

    def __init__(self, folder: Path, images: Sequence[str]) -> None:
        self.images = images  # the agent's, and the demo application's
        self._scripts = kubelet.SCRIPTS
        self._folder = folder
        self._hold_file = folder / "hold"
        self._archives: Sequence[Path] = ()
        # The node's own kubectl is as old as the node, and its kustomize does not know components.
        self.kubectl_argv = (self._scripts / "n", program("kubectl"))
        # From here on every program started must be in the node's network, and one thread can be moved there alone.
        self._there = ThreadPoolExecutor(max_workers=1)
        self._client: Any = None

    @property
    def store(self) -> StoreServer:
        return StoreServer("moto", f"http://{self._address}:{self._port}", "dumpagent", "dumpagent-secret")

    def build(self) -> None:
        """Build what the node runs, once per machine; the images are made with it too."""
        self._script("build.sh", timeout_s=1500)

    def up(self, build_images: Callable[[], Sequence[Path]]) -> None:
        """Start the node from nothing, with images and an S3 server in its network. It must have been built.

        The images are built meanwhile: neither waits for the other's disk and network.
        """
        self._script("down.sh")
        with ThreadPoolExecutor(max_workers=1) as beside:
            archives = beside.submit(build_images)
            self._script("up.sh", timeout_s=600)
            self._define_kinds()
            self._serve_s3()
            self._make_volume()
            self.start_node_shell()
            self._archives = archives.result()
        self._script("load", *map(str, self._archives), timeout_s=300)

    def down(self) -> None:
        """End every process, mount and cgroup of it."""
        self._there.shutdown(wait=False, cancel_futures=True)
        self._script("down.sh")

    def _script(self, name: str, *words: str, timeout_s: float = 60) -> str:
        done = subprocess.run(
            [self._scripts / name, *words], capture_output=True, text=True, check=False, timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise Failed(f"{name}: {done.stdout[-1000:]} {done.stderr[-2000:]}")
        return done.stdout

    def _serve_s3(self) -> None:
        log = self._folder / "s3.log"
        with open(log, "wb") as out:
            # It is a process of the node's: `down` ends it.
            subprocess.Popen(
                [
                    *(self._scripts / "n", sys.executable, "-m", "tests.e2e.s3_server"),
                    *(self._address, str(self._port), str(self._hold_file)),
                ],
                cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip
        self._there.submit(self._enter_network).result()
        until = time.monotonic() + 60
        while True:
            try:
                self._there.submit(
                    lambda: urllib.request.urlopen(self.store.endpoint_url, timeout=5).close()
                ).result()
                break
            except OSError:
                if time.monotonic() > until:
                    raise Failed(f"the S3 server does not start: {log.read_text()[-2000:]}") from None
                time.sleep(0.2)
        self.ask_store(lambda s3: s3.create_bucket(Bucket=self.bucket))

    def _enter_network(self) -> None:
        """Move the calling thread, and no other, into the node's network. Source: setns(2)."""
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{kubelet.process('node1')}/ns/net") as network:
            if libc.setns(network.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def ask_store(self, question: Callable[[S3Client], _T]) -> _T:
        def ask() -> _T:
            self._client = self._client or self.store.client()
            return question(self._client)

        return self._there.submit(ask).result()

    @contextmanager
    def held_uploads(self) -> Iterator[None]:
        self._hold_file.touch()
        try:
            yield
        finally:
            self._hold_file.unlink()

    def _define_kinds(self) -> None:
        """Let the API server know the kinds of OpenShift and of the Prometheus operator, by their schemas."""
        kinds = [schemas.definition(schemas.kind(name)) for name in schemas.KINDS]
        listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": kinds})
        self.kubectl("apply", "--server-side", "--validate=false", "-f", "-", stdin=listed)
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")

    def join(self) -> None:
        """Start the second node, with the images that the first one was loaded with."""
        self._script("up.sh", "node2", timeout_s=300)
        self._script("load", *map(str, self._archives), timeout_s=300)

    def leave(self) -> None:
        """End the second node, so that nothing is placed on it any more."""
        self.kubectl("delete", "node", "node2", "--wait=false")
        self._script("down.sh", "node2")

    def renew_volume(self) -> None:
        """Give a volume like the first one, empty and bound to no claim."""
        self.kubectl("delete", "pv", "dump-storage-0", "--ignore-not-found")
        self.on_node("rm -rf /var/lib/dump-storage-0")
        self._make_volume()

    def _make_volume(self) -> None:
        """Make what a storage class would: the cluster here has none."""
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": "dump-storage-0"},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": "/var/lib/dump-storage-0", "type": "DirectoryOrCreate"},
            },
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(volume))


@contextmanager
def running(
    folder: Path, build_images: Callable[[], Sequence[Path]], images: Sequence[str]
) -> Iterator[Cluster]:
    """Give the cluster to test on; one that was started here is ended, whatever happens."""
    if os.environ.get("KUBECONFIG"):
        missing = [name for name in _OF_ANY_CLUSTER if name not in os.environ]
        if missing:  # nobody's cluster is drained by mistake
            raise Failed(
                f"KUBECONFIG is set, so also set {', '.join(missing)}; or unset it for a cluster of our own"
            )
        cluster = AnyCluster()
        cluster.start_node_shell()
        try:
            yield cluster
        finally:
            cluster.kubectl("delete", "namespace", "e2e", "--wait=false")
        return
    with open(Path(os.environ.get("TMPDIR", "/tmp")) / "dumpagent-e2e.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one cluster directory, one run
        local = LocalCluster(folder, images)
        try:
            local.build()
            local.up(build_images)
            yield local
        finally:
            local.down()


def wait_for(what: str, look: Callable[[], _T], *, timeout_s: float = 90, every_s: float = 0.5) -> _T:
    """Give the first true answer of `look`; what it raises as Failed counts as "not yet". Raises Failed."""
    until = time.monotonic() + timeout_s
    last: object = None
    while True:
        try:
            last = look()
            if last:
                return last
        except Failed as error:
            last = error
        if time.monotonic() > until:
            raise Failed(f"after {timeout_s:g} s still not {what}; last: {last}")
        time.sleep(every_s)
