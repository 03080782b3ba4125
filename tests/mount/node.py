"""A simulated node: host, manager, uploader and applications, each in a mount namespace, as the kubelet sets them up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.mount.container import MS_PRIVATE, MS_REC, MS_SLAVE, Container

PATIENCE_S = 30.0


def eventually(holds: Callable[[], Any], what: str = "", within_s: float = PATIENCE_S) -> Any:
    """Wait until `holds()` is true and give what it gave; fail after `within_s`."""
    until = time.monotonic() + within_s
    while True:
        found = holds()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"never became true within {within_s} s: {what or holds}")
        time.sleep(0.005)


class Manager:
    """A running `dumpagent mount` and what it has logged."""

    def __init__(self, node: Node, container: Container, flags: tuple[str, ...], env: dict[str, str]) -> None:
        self.container = container
        self.heartbeat = node.base / "run/mount.heartbeat"
        self.log_path = node.base / f"manager-{time.monotonic_ns()}.log"
        words = [
            sys.executable, "-m", "dumpagent", "mount",
            "--mount-source", node.source, "--mount-target", node.target,
            "--runtime-dir", f"{node.base}/run", "--node-name", "node-1", "--log-format", "json",
            "--mount-check-interval", "0.3", "--mount-hung-after", "1", "--log-level", "debug",
            *flags,
        ]  # fmt: skip
        with self.log_path.open("wb") as log:
            self.process = container.popen(
                words, stderr=log, stdin=subprocess.DEVNULL, env={**os.environ, **env}
            )

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        """Give what was logged so far, all of it or the events called `name`."""
        whole = self.log_path.read_bytes().rpartition(b"\n")[0]
        lines = [json.loads(line) for line in whole.split(b"\n") if line.startswith(b"{")]
        return [line for line in lines if name in (None, line["event"])]

    def told(self, name: str, times: int = 1) -> list[dict[str, Any]]:
        """Wait until the event `name` was logged that often."""

        def often_enough() -> list[dict[str, Any]]:
            if self.process.poll() is not None and len(self.events(name)) < times:
                raise AssertionError(f"the manager ended:\n{self.log_path.read_text()}")
            found = self.events(name)
            return found if len(found) >= times else []

        try:
            return list(eventually(often_enough, name))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_path.read_text()}") from None

    def ready(self) -> Manager:
        """Wait until it has proven that writes arrive, and has left word of it for the probes."""
        self.told("write_proven")
        eventually(lambda: "verdict ready" in self.heartbeat.read_text())
        return self

    def end(self, number: int = signal.SIGTERM, within_s: float = 10.0) -> int:
        """Send a signal and wait; give the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(within_s)


class Node:
    """The namespaces of one node below the directory `base`.

    On the host, `mnt` is the node's /mnt (shared) and `pv` the volume. The manager sees them as /host/mnt
    (Bidirectional) and /pv-storage; applications and the uploader see /mnt. All of it lies below `base`, so that the
    machine's own directories are not touched.
    """

    def __init__(self, base: Path, *, node_dir: bool = True) -> None:
        self.base = base
        self.mnt, self.pv = f"{base}/host-mnt", f"{base}/pv"
        self.source, self.target = f"{base}/m/pv-storage", f"{base}/m/host/mnt/dump"
        self.app_mnt, self.dumps = f"{base}/app/mnt", f"{base}/app/mnt/dump"
        for path in (self.mnt, self.pv, self.source, os.path.dirname(self.target), self.app_mnt):
            os.makedirs(path)
        self._containers: list[Container] = []
        self._managers: list[Manager] = []
        self.host = self._started(Container())
        self.host.run("mount('node', mnt, 0, 'tmpfs', 'mode=755'); mount(None, mnt, MS_SHARED)", mnt=self.mnt)
        if node_dir:
            self.host.run("os.mkdir(mnt + '/dump'); os.chmod(mnt + '/dump', 0o777)", mnt=self.mnt)
        self.host.run("mount('pv', pv, 0, 'tmpfs', 'mode=777,size=64m')", pv=self.pv)

    def _started(self, container: Container) -> Container:
        self._containers.append(container)
        return container

    def manager_container(self) -> Container:
        """Start the manager's container: hostPath /mnt Bidirectional at /host/mnt, the volume at /pv-storage."""
        container = self._started(Container(self.host))
        container.run(
            "mount(mnt, host_mnt, MS_BIND | MS_REC); mount(pv, source, MS_BIND); mount(None, source, MS_PRIVATE)",
            mnt=self.mnt, host_mnt=os.path.dirname(self.target), pv=self.pv, source=self.source,
        )  # fmt: skip
        return container

    def manager(
        self, *flags: str, container: Container | None = None, env: dict[str, str] | None = None
    ) -> Manager:
        """Start `dumpagent mount`, in a new container unless one is given."""
        started = Manager(self, container or self.manager_container(), flags, env or {})
        self._managers.append(started)
        return started

    def app(self, propagation: str = "HostToContainer", path: str | None = None) -> Container:
        """Start an application's container with the host's /mnt (or `path`) at its /mnt."""
        flag = {"HostToContainer": MS_SLAVE, "None": MS_PRIVATE}[propagation] | MS_REC
        container = self._started(Container(self.host))
        container.run(
            "mount(host, app, MS_BIND | MS_REC); mount(None, app, flag)",
            host=path or self.mnt, app=self.app_mnt, flag=flag,
        )  # fmt: skip
        return container

    def in_volume(self, name: str) -> Path:
        """Give the path of a file of the volume, as this test can open it."""
        return Path(f"/proc/{self.host.pid}/root{self.pv}/{name}")

    def in_node_directory(self, name: str) -> None:
        """Put a file into the node's own directory."""
        self.host.run("open(path, 'w').write('x')", path=f"{self.mnt}/dump/{name}")

    def close(self) -> None:
        """End all that runs; every mount goes with the namespaces."""
        for manager in self._managers:
            if manager.process.poll() is None:
                manager.process.kill()
                manager.process.wait()
        for container in reversed(self._containers):
            container.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
