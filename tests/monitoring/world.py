"""One node with both daemons, their store behind a proxy that can break, and a Prometheus that watches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from tests.harness import children
from tests.harness.faults import FaultProxy
from tests.harness.hprof import Maker
from tests.harness.stores.server import HOST, StoreServer, free_ports
from tests.monitoring.prometheus import Prometheus
from tests.mount.node import Node, eventually

SECRET = "wJalrXUtnFEMI-the-secret"
LONG_S = 150.0  # whatever a loaded machine takes

Volume = Callable[[Node], AbstractContextManager[Any]]


class World:
    """Runs until `close`. `volume` mounts what the node has for a volume; what it gives is `backend`."""

    def __init__(self, folder: Path, moto: StoreServer, volume: Volume | None = None) -> None:
        self.folder, self.moto = folder, moto
        self._undo = ExitStack()
        self.uploader: subprocess.Popen[bytes] | None = None
        try:
            self._start(folder, moto, volume)
        except BaseException:
            self.close()
            raise

    def _start(self, folder: Path, moto: StoreServer, volume: Volume | None) -> None:
        self.node = self._undo.enter_context(Node(folder / "node"))
        self.backend: Any = self._undo.enter_context(volume(self.node)) if volume else None
        self.proxy = self._undo.enter_context(FaultProxy(moto, hang_s=3600))
        self.bucket = moto.new_bucket()
        self.mount_port, self.upload_port = free_ports(2)
        self.manager = self.node.manager(
            env={"METRICS_PORT": str(self.mount_port), "METRICS_ADDRESS": HOST}
        ).ready()
        self.container = self.node.app()
        self.log = folder / "uploader.log"
        self.environment = {
            **os.environ, **self.proxy.server.environment(self.bucket), "AWS_SECRET_ACCESS_KEY": SECRET,
            "DUMP_ROOT": self.node.dumps, "RUNTIME_DIR": str(folder / "run"), "NODE_NAME": "worker-1",
            "WATCH_INTERVAL": "1", "FILE_STABLE_TIME": "0", "STORE_CHECK_INTERVAL": "3", "LOG_LEVEL": "debug",
            "METRICS_PORT": str(self.upload_port), "METRICS_ADDRESS": HOST, "LOCAL_KEEP": "always",
            "NOTIFY_URL": f"http://{HOST}:1/T0/{SECRET}",
        }  # fmt: skip
        self.inside: list[str] = []  # what runs the programs of the uploader's container
        self.start_uploader()
        self.prometheus = self._undo.enter_context(Prometheus(folder, {
            f"{HOST}:{self.mount_port}": {"node": "worker-1", "pod": "dump-volume-manager-0"},
            f"{HOST}:{self.upload_port}": {"node": "worker-1", "pod": "heap-dump-s3-uploader-0"},
        }))  # fmt: skip

    def start_uploader(self) -> None:
        """Start `dumpagent upload`; its log goes on."""
        with self.log.open("ab") as out:
            self.uploader = self.container.popen(
                [*self.inside, sys.executable, "-m", "dumpagent", "upload"], env=self.environment, stderr=out
            )

    def stop_uploader(self, number: int) -> None:
        """End `dumpagent upload` by a signal."""
        assert self.uploader
        self.uploader.send_signal(number)
        self.uploader.wait()

    def dump(self, name: str, content: bytes | None = None) -> None:
        """Let an application write a dump."""
        path = self.folder / name
        path.write_bytes(Maker().dump() if content is None else content)
        self.container.run(
            "__import__('shutil').copy(path, to)", path=str(path), to=f"{self.node.dumps}/{name}"
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give what the uploader has logged under this name; the manager, if it begins with "mount: "."""
        if name.startswith("mount: "):
            return self.manager.events(name.removeprefix("mount: "))
        whole = self.log.read_bytes().rpartition(b"\n")[0]
        lines = [json.loads(line) for line in whole.split(b"\n") if line.startswith(b"{")]
        return [line for line in lines if line["event"] == name]

    def until_stored(self, count: int) -> None:
        """Wait until so many dumps are stored."""
        eventually(lambda: len(self.events("dump_uploaded")) == count, "a dump is stored", within_s=LONG_S)

    def doctor(self) -> tuple[int, dict[str, dict[str, str]]]:
        """Give the doctor's exit code in the uploader's container, and what it says by check; of two the worse."""
        asked = self.container.popen(
            [*self.inside, sys.executable, "-m", "dumpagent", "doctor", "--json"],
            env=self.environment, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        said, _ = asked.communicate(timeout=LONG_S)
        return asked.returncode, {finding["name"]: finding for finding in map(json.loads, said.splitlines())}

    def close(self) -> None:
        """End all that runs, also what hangs."""
        (self.folder / "node/hang").unlink(missing_ok=True)
        if self.uploader:
            children.end(self.uploader, grace_s=0)
        self._undo.close()
