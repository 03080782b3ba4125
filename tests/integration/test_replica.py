"""A second destination, with two S3 servers and the real process: what a user sees when one of them is away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.harness import children
from tests.harness.hprof import Maker
from tests.harness.stores.moto import Moto
from tests.harness.stores.server import StoreServer, free_ports, is_dump_key

MAKE = Maker()
MIB = 1 << 20


class Replica(Moto):
    """A second server, which can be away: its process stands still or is gone, its bucket is not."""

    def away(self) -> None:
        """Let it answer nothing: connections are accepted, and hang."""
        self._child.send_signal(signal.SIGSTOP)

    def back(self) -> None:
        self._child.send_signal(signal.SIGCONT)

    def __exit__(self, *error: object) -> None:
        self.back()
        super().__exit__(*error)


def wait_until(true: Callable[[], bool], *, timeout_s: float = 240) -> None:
    """Return when `true()` is. Fails after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.05)


@dataclass
class Scene:
    """Two servers, a volume, and an agent that uses them."""

    first: Moto
    second: Replica
    root: Path
    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bucket, self.replica = self.first.server.new_bucket(), self.second.server.new_bucket()
        (self.port,) = free_ports(1)

    def environment(self, **more: str) -> dict[str, str]:
        plain = {n: v for n, v in os.environ.items() if not n.startswith(("AWS_", "S3_"))}
        return {
            **plain, **self.first.server.environment(self.bucket),
            "S3_PREFIX": "here", "S3_REPLICA_PREFIX": "there",
            "S3_REPLICA_BUCKET": self.replica,
            "S3_REPLICA_ENDPOINT_URL": self.second.server.endpoint_url,
            "S3_REPLICA_ACCESS_KEY_ID": "replica-key", "S3_REPLICA_SECRET_ACCESS_KEY": "replica-secret-value",
            "DUMP_ROOT": str(self.root), "FILE_STABLE_TIME": "0", "NODE_NAME": "worker-1", "WATCH_INTERVAL": "1",
            "METRICS_PORT": str(self.port), "METRICS_ADDRESS": "127.0.0.1", "SUMMARY": "off", **self.settings, **more,
        }  # fmt: skip

    @property
    def log(self) -> Path:
        return self.folder / "agent.log"

    def start(self, **more: str) -> subprocess.Popen[bytes]:
        """Start the uploader as its manifest does."""
        with open(self.log, "ab") as log:
            child = children.start(
                [sys.executable, "-m", "dumpagent", "upload"],
                env=self.environment(**more), stdout=subprocess.DEVNULL, stderr=log,
            )  # fmt: skip
        self.started.append(child)
        return child

    def run(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "dumpagent", *words],
            env=self.environment(**more), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def dump(self, name: str, *, megabytes: int = 0) -> bytes:
        content = MAKE.dump(segments=3) if not megabytes else MAKE.dump(segments=megabytes, segment_bytes=MIB)
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return content

    def stored(self) -> dict[str, bytes]:
        return stored(self.first.server, self.bucket)

    def replicated(self) -> dict[str, bytes]:
        return stored(self.second.server, self.replica)

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.log.read_text().splitlines() if line[:1] == "{"]

    def metrics(self) -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[:1] != "#"}

    def left(self) -> list[str]:
        """Give the dumps that lie on the volume."""
        return sorted(path.name for path in self.root.rglob("*.hprof"))


def stored(server: StoreServer, bucket: str) -> dict[str, bytes]:
    """Give all dumps of a bucket, by their key."""
    client = server.client()
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys if is_dump_key(key)}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    for name in ("first", "second", "dump"):
        (tmp_path / name).mkdir()
    with Moto(tmp_path / "first") as first, Replica(tmp_path / "second") as second:
        made = Scene(first, second, tmp_path / "dump", tmp_path)
        yield made
        for child in made.started:
            children.end(child, grace_s=5)


def assert_equation(metrics: dict[str, float], name: str) -> None:
    seen = metrics[f"{name}_seen_total"]
    assert (
        seen
        == metrics[f"{name}_uploaded_total"] + metrics[f"{name}_pending"] + metrics[f"{name}_failed_total"]
    )


def test_every_dump_is_in_both_stores_under_each_ones_prefix(scene: Scene) -> None:
    one, large = scene.dump("shop/a.hprof"), scene.dump("shop/b.hprof", megabytes=40)
    (scene.root / "shop" / "hs_err_pid1.log").write_bytes(b"# A fatal error\n" * 100)
    scene.start()
    wait_until(lambda: len(scene.replicated()) == 3)
    assert scene.stored()["here/shop/a.hprof"] == scene.replicated()["there/shop/a.hprof"] == one
    assert scene.stored()["here/shop/b.hprof"] == scene.replicated()["there/shop/b.hprof"] == large
    assert {key.partition("/")[2] for key in scene.stored()} == {
        key.partition("/")[2] for key in scene.replicated()
    }
    metrics = scene.metrics()
    assert metrics["dumpagent_dumps_uploaded_total"] == metrics["dumpagent_replica_dumps_uploaded_total"] == 2
    assert metrics["dumpagent_replica_companions_uploaded_total"] == 1
    assert metrics["dumpagent_replica_store_reachable"] == 1
    for name in ("dumpagent_dumps", "dumpagent_replica_dumps", "dumpagent_replica_companions"):
        assert_equation(metrics, name)
    assert scene.events().count("dump_uploaded") == 2, "one message per dump, not one per store"
    assert "replica-secret-value" not in scene.log.read_text()


@pytest.mark.timeout(900)
def test_a_replica_that_hangs_delays_nothing_and_keeps_every_dump_on_the_volume(scene: Scene) -> None:
    """Connections are accepted and never answered: the worst that a store can do."""
    scene.settings |= {"LOCAL_KEEP": "until-uploaded"}
    scene.second.away()
    scene.start()
    wait_until(lambda: "agent_started" in scene.events())
    for number in range(5):
        scene.dump(f"app-{number}/java.hprof")
        # A request that hangs is given up after a minute.
        wait_until(lambda number=number: len(scene.stored()) == number + 1, timeout_s=50)  # type: ignore[misc]
    time.sleep(1)
    metrics = scene.metrics()
    assert metrics["dumpagent_dumps_uploaded_total"] == 5
    assert metrics["dumpagent_replica_dumps_pending"] == 5
    assert_equation(metrics, "dumpagent_replica_dumps")
    assert len(scene.left()) == 5
    scene.second.back()
    wait_until(lambda: len(scene.replicated()) == 5, timeout_s=240)
    wait_until(
        lambda: not scene.left(), timeout_s=90
    )  # confirmed twice in both: half a minute after the upload


def test_once_uploads_to_both_and_fails_if_one_failed(scene: Scene) -> None:
    scene.dump("a.hprof")
    done = scene.run("upload", "--dry-run")
    assert (done.returncode, scene.stored(), scene.replicated()) == (0, {}, {}), done.stderr
    assert "there/a.hprof" in done.stderr
    done = scene.run("upload", "--once", S3_REPLICA_BUCKET="no-such-bucket")
    assert done.returncode == 1, done.stderr
    assert "S3_REPLICA_BUCKET" in done.stderr
    assert (len(scene.stored()), len(scene.replicated())) == (1, 0)
    done = scene.run("upload", "--once")
    assert done.returncode == 0, done.stderr
    assert (len(scene.stored()), len(scene.replicated())) == (1, 1)
    assert '"uploaded": 1' in done.stderr


def test_a_state_that_is_lost_loses_and_doubles_nothing_in_either_store(scene: Scene) -> None:
    scene.dump("a.hprof")
    scene.dump("b.hprof", megabytes=20)
    for _ in range(3):
        assert scene.run("upload", "--once").returncode == 0
        shutil.rmtree(scene.root / ".dumpagent")
    assert sorted(scene.stored()) == ["here/a.hprof", "here/b.hprof"]
    assert sorted(scene.replicated()) == ["there/a.hprof", "there/b.hprof"]
    assert len(scene.left()) == 2


@pytest.mark.timeout(900)
def test_kills_leave_each_dump_once_in_both_stores(scene: Scene) -> None:
    wanted = {f"app/{number}.hprof": scene.dump(f"app/{number}.hprof", megabytes=12) for number in range(4)}
    for count in range(8):
        child = scene.start()
        time.sleep(0.8 + count * 0.15)
        child.kill()
        child.wait()
        if count % 4 == 3:
            shutil.rmtree(scene.root / ".dumpagent", ignore_errors=True)
    scene.start()
    wait_until(lambda: len(scene.replicated()) == 4, timeout_s=240)
    assert scene.stored() == {f"here/{path}": content for path, content in wanted.items()}
    assert scene.replicated() == {f"there/{path}": content for path, content in wanted.items()}


@pytest.mark.timeout(900)
def test_a_dump_that_the_replica_lost_is_not_deleted_and_goes_there_again(scene: Scene) -> None:
    """LOCAL_KEEP deletes only what both stores show at that moment."""
    scene.dump("a.hprof")
    agent = scene.start()
    wait_until(lambda: bool(scene.replicated()))
    wait_until(lambda: _rechecked(scene.root / ".dumpagent"), timeout_s=240)
    agent.terminate()
    agent.wait()
    client = scene.second.server.client()
    client.delete_object(Bucket=scene.replica, Key="there/a.hprof")
    scene.start(LOCAL_KEEP="until-uploaded")
    wait_until(lambda: "replica_object_missing" in scene.events())
    assert scene.left()
    wait_until(lambda: bool(scene.replicated()))
    wait_until(lambda: not scene.left(), timeout_s=240)
    assert len(scene.stored()) == 1


def _rechecked(state: Path) -> bool:
    receipts = [*state.glob("receipts/*.json"), *state.glob("replica/receipts/*.json")]
    return len(receipts) == 2 and all(json.loads(path.read_text())["rechecked"] for path in receipts)


def test_a_dump_reaches_the_replica_while_the_first_store_is_away(scene: Scene) -> None:
    """The one copy that can be had is had at once."""
    scene.start(S3_ENDPOINT_URL="http://127.0.0.1:1")
    scene.dump("a.hprof")
    wait_until(lambda: bool(scene.replicated()))
    assert scene.metrics()["dumpagent_dumps_pending"] == 1


def test_the_readers_find_what_the_replica_holds(scene: Scene) -> None:
    content = scene.dump("shop/a.hprof")
    assert scene.run("upload", "--once").returncode == 0
    client = scene.first.server.client()
    for found in client.list_objects_v2(Bucket=scene.bucket)["Contents"]:
        client.delete_object(Bucket=scene.bucket, Key=found["Key"])
    assert "shop/a.hprof" in scene.run("ls", "--replica").stdout
    assert scene.run("verify", "--replica", "--all").returncode == 0
    target = scene.folder / "got.hprof"
    assert scene.run("get", "--replica", "--latest", "-o", str(target)).returncode == 0
    assert target.read_bytes() == content


def test_doctor_looks_at_both_stores(scene: Scene) -> None:
    done = scene.run("doctor", "--store", "--json")
    findings = {json.loads(line)["name"]: json.loads(line) for line in done.stdout.splitlines()}
    assert findings["canary"]["result"] == findings["replica canary"]["result"] == "ok", done.stdout
    done = scene.run("doctor", "--store", "--json", S3_REPLICA_BUCKET="no-such-bucket")
    findings = {json.loads(line)["name"]: json.loads(line) for line in done.stdout.splitlines()}
    assert done.returncode == 1
    assert findings["bucket"]["result"] == "ok"
    assert findings["replica bucket"]["result"] == "failed"
    assert "S3_REPLICA_BUCKET" in findings["replica bucket"]["fix"]
