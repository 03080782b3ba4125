"""The agent dies at any moment, again and again, and the bucket ends with exactly the dumps that were on the disk."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from dumpagent.settings import S3
from dumpagent.store.s3.store import S3Store
from tests.harness import children
from tests.harness.stores.server import StoreServer, is_dump_key
from tests.harness.sweeping import sweep_leftovers

MIB = 1 << 20
DUMPS, KILLS = 10, 20


def wait_until(true: Callable[[], bool], *, timeout_s: float = 60) -> None:
    """Return when `true()` is. Fails after `timeout_s`."""
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def agent(
    server: StoreServer, bucket: str, root: Path, *words: str, log: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `dumpagent upload` on `root` as a pod would; what it says goes to `log`, or to a pipe."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_"))
    } | server.environment(bucket)
    environment |= {
        "DUMP_ROOT": str(root),
        "FILE_STABLE_TIME": "0",
        "NODE_NAME": "worker-1",
        "WATCH_INTERVAL": "1",
    }
    with open(log or os.devnull, "wb") as file:
        return children.start(
            [sys.executable, "-m", "dumpagent", "upload", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=file if log else subprocess.PIPE,
        )


def digests(server: StoreServer, bucket: str, *, unpack: bool = False) -> dict[str, str]:
    """Give the SHA-256 of everything in the bucket; `unpack`: of what the gzip files hold, by the name without .gz."""
    client = server.client()
    found = {}
    for entry in client.list_objects_v2(Bucket=bucket).get("Contents", []):
        key = entry["Key"]
        if not is_dump_key(key):
            continue
        content = client.get_object(Bucket=bucket, Key=key)["Body"].read()
        if unpack:
            key, content = key.removesuffix(".gz"), gzip.decompress(content)
        found[key] = hashlib.sha256(content).hexdigest()
    return found


def open_uploads(server: StoreServer, bucket: str) -> list[str]:
    return [
        entry["Key"] for entry in server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    ]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("store", ["moto", "swift"])
def test_kill_9_at_20_moments_during_10_uploads_loses_and_doubles_nothing(
    store: str,
    compression: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server: StoreServer = request.getfixturevalue(store)
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    bucket = server.new_bucket()
    wanted = {}
    for number in range(DUMPS):
        path = tmp_path / f"app-{number}" / "java_pid1.hprof"
        path.parent.mkdir()
        content = b"JAVA PROFILE 1.0.2\0" + chance.randbytes(chance.choice([1, 17 * MIB, 33 * MIB, 49 * MIB]))
        path.write_bytes(content)
        wanted[f"app-{number}/java_pid1.hprof"] = hashlib.sha256(content).hexdigest()

    words = ("--compression", compression)
    unfinished_at_kill = 0
    log = tmp_path / "log.txt"
    for _ in range(KILLS):
        running = agent(server, bucket, tmp_path, *words, log=log)
        wait_until(lambda: "store_answered" in log.read_text())  # it is at work now
        time.sleep(chance.uniform(0, 1.5))
        receipts = tmp_path / ".dumpagent" / "receipts"
        unfinished_at_kill += not receipts.exists() or len(list(receipts.glob("*.json"))) < DUMPS
        running.send_signal(signal.SIGKILL)
        running.communicate()
        if chance.random() < 0.2:
            subprocess.run(["rm", "-rf", str(tmp_path / ".dumpagent")], check=True)
    last = agent(server, bucket, tmp_path, "--once", *words)
    _, said = last.communicate(timeout=300)
    assert last.returncode == 0, said.decode()
    assert digests(server, bucket, unpack=compression == "gzip") == wanted
    # What was begun in the moment of a kill is known to nobody; an agent that lives an hour ends it.
    for name, value in server.environment(bucket).items():
        monkeypatch.setenv(name, value)
    sweep_leftovers(S3Store(S3(bucket=bucket, endpoint_url=server.endpoint_url)), node="worker-1")
    assert open_uploads(server, bucket) == []
    assert unfinished_at_kill > 0, "every kill came too late to prove anything"
    again = agent(server, bucket, tmp_path, "--once", *words)
    _, said = again.communicate(timeout=300)
    (finished,) = [json.loads(line) for line in said.splitlines() if b"pass_finished" in line]
    assert (finished["uploaded"], finished["failed"]) == (0, 0)
    print(f"{unfinished_at_kill} of {KILLS} kills came before all dumps were stored")


@pytest.mark.parametrize("words", [(), ("--once",)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.slow
def test_a_stop_in_the_middle_of_an_upload_ends_at_once_and_leaves_nothing_half_recorded(
    moto: StoreServer, tmp_path: Path, words: tuple[str, ...], number: signal.Signals
) -> None:
    bucket = moto.new_bucket()
    content = os.urandom(90 * MIB)
    (tmp_path / "java_pid1.hprof").write_bytes(content)
    running = agent(moto, bucket, tmp_path, *words)
    wait_until(lambda: any((tmp_path / ".dumpagent").glob("uploads/*.json")))
    running.send_signal(number)
    running.communicate(timeout=30)
    # On a machine that stalls, the end of the upload may have come first. An empty object only keeps the key.
    empty = hashlib.sha256(b"").hexdigest()
    stored = [digest for digest in digests(moto, bucket).values() if digest != empty]
    assert running.returncode == (1 if words and not stored else 0)  # a pass that was cut off is not done
    assert len(list((tmp_path / ".dumpagent" / "receipts").glob("*.json"))) == len(stored)
    last = agent(moto, bucket, tmp_path, "--once")
    _, said = last.communicate(timeout=120)
    assert last.returncode == 0, said.decode()
    assert digests(moto, bucket) == {"java_pid1.hprof": hashlib.sha256(content).hexdigest()}
    assert open_uploads(moto, bucket) == []


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("--once",)])
def test_a_stop_does_not_wait_for_a_store_that_hangs(tmp_path: Path, words: tuple[str, ...]) -> None:
    """SIGTERM ends within 5 s; the store here takes every connection and never answers."""
    (tmp_path / "java_pid1.hprof").write_bytes(b"x" * 1000)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        port = silent.getsockname()[1]
        server = StoreServer("silent", f"http://127.0.0.1:{port}", "key", "secret")
        running = agent(server, "dumps", tmp_path, *words)
        silent.accept()[0].settimeout(60)
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=30)
        took_s = time.monotonic() - began
    assert running.returncode == (1 if words else 0)
    assert took_s < 5
