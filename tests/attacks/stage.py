"""A node on which an attack is played: volume, manager, uploader, a hostile application, a victim, and a bucket."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from bench.limits import Cgroup
from tests.attacks.pods import Pod, pod_of
from tests.attacks.tenants import ATTACKER, VICTIM, Tenant
from tests.attacks.versions import Version
from tests.harness.stores.server import StoreServer, is_dump_key
from tests.mount.container import Container
from tests.mount.node import Node, eventually

PREFIX = "heap-dumps"


class Daemon:
    """A running `dumpagent upload` or `dumpagent mount`, and what it has logged."""

    def __init__(self, process: subprocess.Popen[Any], log: Path, heartbeat: Path, out: IO[bytes]) -> None:
        self.process, self.log, self._heartbeat, self._out = process, log, heartbeat, out
        self.oldest_beat_s = 0.0
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.25):
            with contextlib.suppress(OSError, IndexError, ValueError):
                beaten = next(
                    line for line in self._heartbeat.read_text().splitlines() if line.startswith("beaten ")
                )
                uptime_s = float(Path("/proc/uptime").read_text().split()[0])
                self.oldest_beat_s = max(self.oldest_beat_s, uptime_s - float(beaten.split()[1]))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Give what was logged so far under this name."""
        whole = self.log.read_bytes().rpartition(b"\n")[0]
        lines = (json.loads(line) for line in whole.split(b"\n") if line.startswith(b"{"))
        return [line for line in lines if line["event"] == name]

    def end(self) -> None:
        """End it as a pod ends."""
        self._ended.set()
        self._watcher.join()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._out.close()


class Stage:
    """One node with one version on it, all from that version's manifests. `limited`: inside the uploader's limits."""

    def __init__(
        self, version: Version, server: StoreServer, *, manager: bool = True, limited: bool = False
    ) -> None:
        self.version = version
        self._server, self._limited = server, limited
        self.bucket = server.new_bucket()
        self.client = server.client()
        # Not pytest's own folder: a tenant may not enter that.
        self.base = Path(tempfile.mkdtemp(prefix="attack-"))
        self.base.chmod(0o755)
        self.node = Node(self.base / "n")
        self.root = self.node.dumps
        self.node.host.run(
            "mount('pv', pv, MS_REMOUNT, 'tmpfs', 'size=300m,nr_inodes=1m'); os.chmod(pv, 0o1777); "
            "os.chmod(mnt + '/dump', 0o1777)",
            pv=self.node.pv, mnt=self.node.mnt,
        )  # fmt: skip
        self.uploader_pod = pod_of(version, "heap-dump-s3-uploader")
        self.manager_pod = pod_of(version, "dump-volume-manager")
        self._daemons: list[Daemon] = []
        self._cgroups = contextlib.ExitStack()
        self.attacker = Tenant(self.node.app(), ATTACKER, root=self.root)
        self.victim = Tenant(self.node.app(), VICTIM, root=self.root)
        self.written_at = self._appeared_at = 0.0
        self.content = b""
        self.relpath = ""
        if manager:
            self.start_manager()
        else:
            self.node.host.run("mount(pv, mnt + '/dump', MS_BIND)", pv=self.node.pv, mnt=self.node.mnt)

    # -- daemons --------------------------------------------------------------------------------------------------

    def start_manager(self, *, wait: bool = True, **env: str) -> Daemon:
        """Start `dumpagent mount`, and wait until the volume is ready."""
        settings = {
            "MOUNT_SOURCE": self.node.source,
            "MOUNT_TARGET": self.node.target,
            "MOUNT_CHECK_INTERVAL": "1s",
        }
        daemon = self._start(self.manager_pod, self.node.manager_container(), "mount", {**settings, **env})
        if wait:
            ready = self.node.in_volume(".ready")
            eventually(lambda: ready.exists() or daemon.process.poll() is not None, "the volume is ready", 60)
            assert daemon.process.poll() is None, daemon.log.read_text()
        return daemon

    def start_uploader(self, **env: str) -> Daemon:
        """Start `dumpagent upload`; `env` are settings that differ from the manifest's."""
        for path, propagation in self.uploader_pod.mounts.items():
            assert (path, propagation) == ("/mnt", "HostToContainer"), "the stage has to mount this too"
        settings = {
            "DUMP_ROOT": self.root,
            "S3_PREFIX": PREFIX,
            "S3_STORAGE_CLASS": "STANDARD",
            **self._server.environment(self.bucket),
        }
        daemon = self._start(
            self.uploader_pod, self.node.app(), "upload", {**settings, **env}, limited=self._limited
        )
        eventually(lambda: daemon.events("agent_started"), "the agent starts", 90)
        return daemon

    def _start(
        self, pod: Pod, container: Container, mode: str, env: dict[str, str], *, limited: bool = False
    ) -> Daemon:
        run = self.base / f"run-{mode}"
        run.mkdir(exist_ok=True)
        log = self.base / f"{mode}-{time.monotonic_ns()}.log"
        out = log.open("wb")
        cgroup = self._cgroups.enter_context(Cgroup(pod.cpus, pod.memory_bytes)) if limited else None
        process = container.popen(
            [*pod.words(), sys.executable, "-m", "dumpagent", *pod.args],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=cgroup.join if cgroup else None,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(self.version.folder),
                **pod.env,
                "RUNTIME_DIR": str(run),
                "METRICS_PORT": "0",
                "LOG_FORMAT": "json",
                "NODE_NAME": "node-1",
                **env,
            },
        )
        daemon = Daemon(process, log, run / f"{mode}.heartbeat", out)
        self._daemons.append(daemon)
        return daemon

    # -- the victim -----------------------------------------------------------------------------------------------

    def victim_writes(self, content: bytes, relpath: str = "shop_checkout.hprof") -> None:
        """Have the victim's JVM die and leave this dump."""
        self.content, self.relpath = content, relpath
        self.victim.write_dump(relpath, content)
        self.written_at = time.monotonic()

    def stored(self) -> dict[str, bytes]:
        """Give all dumps in the bucket, by key."""
        listed = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        keys = [each["Key"] for each in listed if is_dump_key(each["Key"])]
        return {key: self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read() for key in keys}

    @property
    def own_key(self) -> str:
        """Give the key that the victim's dump has to have."""
        return f"{PREFIX}/{self.relpath}"

    def is_stored(self) -> bool:
        """Say whether the bucket holds the victim's dump under its own key now."""
        with contextlib.suppress(self.client.exceptions.NoSuchKey):
            body = self.client.get_object(Bucket=self.bucket, Key=self.own_key)["Body"].read()
            return bool(body == self.content)
        return False

    def stored_after_s(self, within_s: float) -> float | None:
        """Give the seconds from the end of the victim's dump to its object, None if there is none within `within_s`."""
        while time.monotonic() - self.written_at < within_s:
            if self.is_stored():
                return time.monotonic() - self.written_at
            if not self.version.is_ours and self.unsound():
                return None  # the control: the daemon would be killed
            time.sleep(0.1)
        return None

    def victim_has(self, relpath: str) -> bool:
        """Say whether a file of the victim's is where it was."""
        return self.node.in_volume(relpath).exists()

    def volume(self) -> list[str]:
        """Give the names in the dump root."""
        return sorted(os.listdir(self.node.in_volume("")))

    # -- the end --------------------------------------------------------------------------------------------------

    def unsound(self) -> str:
        """Say what the attack did to the daemons: one that ended, or a heartbeat older than half the liveness time."""
        for daemon in self._daemons:
            if daemon.process.poll() not in (None, 0, -15):
                return f"a daemon ended with {daemon.process.returncode}:\n{daemon.log.read_text()[-3000:]}"
            if daemon.oldest_beat_s > self.uploader_pod.liveness_s / 2:
                return f"the heartbeat was {daemon.oldest_beat_s:.0f} s old"
        return ""

    def close(self) -> None:
        """End everything; every mount goes with the namespaces."""
        for tenant in (self.attacker, self.victim):
            tenant.close()
        for daemon in self._daemons:
            daemon.end()
        self.node.close()
        self._cgroups.close()
        shutil.rmtree(self.base, ignore_errors=True)

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            for daemon in self._daemons:
                print(daemon.log.name, daemon.log.read_text()[-4000:], sep="\n")
        self.close()
