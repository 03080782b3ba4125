"""The faults that everybody must be told of: how each comes about, and who tells of it in which words."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.harness.faults import Fault, always
from tests.harness.hprof import Maker
from tests.monitoring.world import Volume, World
from tests.mount.volumes import ext4, fail, fuse


def _nothing(_world: World) -> None:
    pass


@dataclass(frozen=True)
class Case:
    """A fault, and who must tell of it.

    `log` is the event that tells of it, once and with its hint; the manager's if it begins with "mount: ".
    `finding` is the doctor's check, with a word of what it saw and one of what to do. `afterwards` is what happens
    before the log is looked at.
    """

    name: str
    strike: Callable[[World], object]
    metric: str
    alert: str
    log: str
    finding: tuple[str, str, str]
    volume: Volume | None = None
    afterwards: Callable[[World], object] = _nothing

    @property
    def row(self) -> str:
        """Give its line of the table in docs/monitoring.md."""
        metric = self.metric.replace("|", "\\|")
        daemon, _, event = self.log.rpartition(": ")
        return f"| {self.name} | `{metric}` | {self.alert} | `{event}` of {daemon or 'upload'} | {self.finding[0]} |"


def _delete_bucket(world: World) -> None:
    client = world.moto.client()
    for found in client.list_objects_v2(Bucket=world.bucket).get("Contents", []):
        client.delete_object(Bucket=world.bucket, Key=found["Key"])
    client.delete_bucket(Bucket=world.bucket)


def _break_store(fault: Fault) -> Callable[[World], object]:
    def strike(world: World) -> None:
        world.proxy.plan = always(fault)

    return strike


def _slow_store(world: World) -> None:
    world.proxy.plan = always(Fault.HANG)
    world.dump("waits.hprof")


def _fill(world: World) -> None:
    code = (
        "f = open(path, 'wb')\ntry:\n    while True: f.write(bytes(1 << 20)); f.flush()\n"
        "except OSError: pass\nfinally:\n    try: f.close()\n    except OSError: pass"
    )
    world.node.host.run(code, path=f"{world.node.pv}/filler")


def _lose_mount(world: World) -> None:
    """Unmount it, and leave nothing that it could be mounted on."""
    world.manager.process.send_signal(signal.SIGSTOP)
    try:
        world.node.host.run(
            "umount(path, 2); os.rmdir(path); open(path, 'x').close()", path=f"{world.node.mnt}/dump"
        )
    finally:
        world.manager.process.send_signal(signal.SIGCONT)


def _hang(world: World) -> None:
    Path(f"{world.node.base}/hang").touch()


def _use_up_watches(world: World) -> None:
    """Start the uploader again where its user may have no watch; the machine's own limit stays as it is.

    Source: /proc/sys/user in namespaces(7): the limits of this user namespace.
    """
    world.stop_uploader(signal.SIGTERM)
    limit = 'echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"'
    world.inside = ["unshare", "--user", "--map-root-user", "sh", "-c", limit, "sh"]
    world.start_uploader()


def _kill(world: World) -> None:
    world.stop_uploader(signal.SIGKILL)


_STORE_AWAY = "dumpagent_store_reachable == 0"
_NO_STORE = (_STORE_AWAY, "DumpStoreUnreachable", "store_failed")

CASES = [
    Case("bucket deleted", _delete_bucket, *_NO_STORE, ("bucket", "NoSuchBucket", "create the bucket")),
    Case("key revoked", _break_store(Fault.KEY_REVOKED), *_NO_STORE,
         ("bucket", "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID")),
    Case("clock refused: an hour off, and the store refuses its own time too", _break_store(Fault.CLOCK_SKEWED), *_NO_STORE, ("bucket", "RequestTimeTooSkewed", "NTP")),
    Case("S3 answers 500", _break_store(Fault.ERROR_500), *_NO_STORE, ("bucket", "500 InternalError", "health")),
    Case("slow S3", _slow_store, "dumpagent_dumps_oldest_pending_seconds > 15", "DumpPendingTooLong", "store_failed",
         ("connection", "timed out", "network policies")),
    Case("PV full", _fill, 'dumpagent_volume_state{state="full"} == 1', "DumpVolumeUnusable", "mount: backend_full",
         ("volume writes", "No space left", "enlarge the claim")),
    Case("PV read-only", lambda world: fail(world.backend), 'dumpagent_volume_state{state="read-only"} == 1',
         "DumpVolumeUnusable", "mount: backend_read_only", ("mount", "nothing is mounted", "mount_set_aside"), volume=ext4),
    Case("mount lost", _lose_mount, "dumpagent_mount_up == 0", "DumpVolumeNotMounted", "mount: mount_lost",
         ("mount", "nothing is mounted", "remount_failed")),
    Case("FUSE hang", _hang, 'dumpagent_volume_state{state="hung"} == 1', "DumpVolumeUnusable", "mount: backend_hung",
         ("volume", "the volume hangs", "storage behind the claim"), volume=fuse),
    Case("inotify limit", _use_up_watches, 'dumpagent_trouble{trouble="watch"} == 1', "DumpWakeupsMissing",
         "watch_limited", ("wake-ups", "no more watches", "fs.inotify.max_user_watches")),
    Case("truncated dump", lambda world: world.dump("cut.hprof", Maker().dump()[:-9]),
         'dumpagent_dumps_stored_total{verdict="truncated"} > 0', "DumpTruncated", "dump_uploaded",
         ("dumps", "truncated", "time to write")),
    Case("agent killed", _kill, 'up{job="dumpagent"} == 0', "DumpAgentDown", "agent_killed",
         ("daemon", "was killed", "OOMKilled"), afterwards=World.start_uploader),
]  # fmt: skip
