"""A developer's day: dumps come out of real stores over bad lines, through kill -9, and never half or mixed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.harness import children
from tests.harness.hprof import Maker
from tests.harness.jvm import Jdk
from tests.harness.stores.server import StoreServer
from tests.harness.valve import Valve

pytestmark = [pytest.mark.slow]
MIB = 1 << 20
KEY = "shop/checkout/java_pid1.hprof"


def start(server: StoreServer, bucket: str, folder: Path, *words: str) -> subprocess.Popen[str]:
    return children.start(
        [sys.executable, "-m", "dumpagent", *words],
        cwd=folder,
        env={**os.environ, **server.environment(bucket)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(server: StoreServer, bucket: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    running = start(server, bucket, folder, *words)
    out, err = running.communicate(timeout=120)
    return subprocess.CompletedProcess(words, running.returncode, out, err)


def wait_until(true: Callable[[], bool], *, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def arrived(part: Path) -> int:
    """Give about how many bytes of the dump a part file has: between them it may have holes."""
    return part.stat().st_blocks * 512


@dataclass(frozen=True)
class Stored:
    """A bucket that holds one dump of 40 MiB, brought there by the agent in several parts."""

    server: StoreServer
    bucket: str
    content: bytes
    folder: Path

    def files(self) -> dict[str, str]:
        found = {}
        for path in self.folder.iterdir():
            found[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        return found

    @property
    def whole(self) -> dict[str, str]:
        return {"java_pid1.hprof": hashlib.sha256(self.content).hexdigest()}

    def parts(self) -> list[Path]:
        return list(self.folder.glob("*.part"))


def upload(server: StoreServer, bucket: str, root: Path, **variables: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "dumpagent", "upload", "--once"],
        env={
            **os.environ,
            **server.environment(bucket),
            "DUMP_ROOT": str(root),
            "FILE_STABLE_TIME": "0",
            "NODE_NAME": "worker-1",
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.fixture(params=["moto", "swift"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Stored:
    server: StoreServer = request.getfixturevalue(request.param)
    bucket = server.new_bucket()
    path = tmp_path / "dump" / KEY
    path.parent.mkdir(parents=True)
    content = Maker().dump(segments=9, segment_bytes=4 * MIB)
    # Random bytes instead of zeros in the arrays, so that a shifted piece would be noticed.
    content = content.replace(bytes(4 * MIB - 18), random.Random(7).randbytes(4 * MIB - 18))
    path.write_bytes(content)
    upload(server, bucket, tmp_path / "dump")
    folder = tmp_path / "here"
    folder.mkdir()
    return Stored(server, bucket, content, folder)


def test_a_dump_is_listed_fetched_over_a_line_that_breaks_and_verified_without_any_right_to_write(
    stored: Stored,
) -> None:
    with Valve(stored.server, 5 * MIB, 100, 11 * MIB) as valve:
        listed = run(valve.server, stored.bucket, stored.folder, "ls", "--json")
        assert listed.returncode == 0, listed.stderr
        (line,) = map(json.loads, listed.stdout.splitlines())
        assert (line["path"], line["node"], line["verdict"]) == (KEY, "worker-1", "complete")
        assert line["application"] == "shop/checkout"
        fetched = run(valve.server, stored.bucket, stored.folder, "get", "checkout")
        assert (fetched.returncode, fetched.stdout) == (0, "java_pid1.hprof\n"), fetched.stderr
        assert "checksum verified" in fetched.stderr
        assert stored.files() == stored.whole
        verified = run(valve.server, stored.bucket, stored.folder, "verify", "--all")
        assert verified.returncode == 0, verified.stderr
        assert verified.stdout.startswith("intact ")
        for words in (("checkout",), ("--latest", "--workload", "shop/checkout")):
            inspected = run(valve.server, stored.bucket, stored.folder, "inspect", "--json", *words)
            assert inspected.returncode == 0, inspected.stderr
            found = json.loads(inspected.stdout)
            assert (found["path"], found["state"], found["size_bytes"]) == (
                KEY,
                "complete",
                len(stored.content),
            )
        assert stored.files() == stored.whole, "inspect keeps nothing"
        assert valve.methods <= {"GET", "HEAD"}


def test_after_kill_9_in_the_middle_the_next_fetch_goes_on_from_there(stored: Stored) -> None:
    with Valve(stored.server, hold_after=20 * MIB) as valve:
        running = start(valve.server, stored.bucket, stored.folder, "get", KEY)
        assert valve.held.wait(60)
        wait_until(lambda: any(arrived(part) > 10 * MIB for part in stored.parts()))
        running.send_signal(signal.SIGKILL)
        running.communicate()
        (part,) = stored.parts()
        had_bytes = arrived(part)
        valve.release()
        before = valve.passed_bytes
        again = run(valve.server, stored.bucket, stored.folder, "get", KEY)
        assert again.returncode == 0, again.stderr
        assert "fetched before" in again.stderr
        # Of each of the ranges the chunk that was written and not noted comes again.
        assert valve.passed_bytes - before < len(stored.content) - had_bytes + 4 * MIB
    assert stored.files() == stored.whole


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_at_once_although_the_store_hangs_and_says_how_to_go_on(
    stored: Stored, number: signal.Signals
) -> None:
    with Valve(stored.server, hold_after=20 * MIB) as valve:
        running = start(valve.server, stored.bucket, stored.folder, "get", KEY)
        assert valve.held.wait(60)
        wait_until(lambda: any(arrived(part) > 10 * MIB for part in stored.parts()))
        running.send_signal(number)
        _, said = running.communicate(timeout=30)
    assert running.returncode == 128 + number
    assert "run the same command again" in said
    assert "Traceback" not in said
    assert run(stored.server, stored.bucket, stored.folder, "get", KEY).returncode == 0
    assert stored.files() == stored.whole


def test_an_object_that_is_replaced_during_the_download_is_never_glued_to_the_old_one(stored: Stored) -> None:
    with Valve(stored.server, hold_after=20 * MIB) as valve:
        running = start(valve.server, stored.bucket, stored.folder, "get", KEY)
        assert valve.held.wait(60)
        wait_until(lambda: any(arrived(part) > 10 * MIB for part in stored.parts()))
        stored.server.client().put_object(Bucket=stored.bucket, Key=KEY, Body=stored.content[::-1])
        valve.cut()
        valve.release()
        _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "was replaced by another object" in said
    assert stored.files() == {}


def test_a_part_of_an_object_that_was_replaced_since_is_left_alone(stored: Stored) -> None:
    with Valve(stored.server, hold_after=20 * MIB) as valve:
        running = start(valve.server, stored.bucket, stored.folder, "get", KEY)
        assert valve.held.wait(60)
        wait_until(lambda: any(arrived(part) > 10 * MIB for part in stored.parts()))
        running.kill()
        running.communicate()
    other = stored.content[::-1]
    client = stored.server.client()
    labels = client.head_object(Bucket=stored.bucket, Key=KEY)["Metadata"]
    labels["crc32"] = f"{zlib.crc32(other):08x}"  # another dump, as an agent stores it
    client.put_object(Bucket=stored.bucket, Key=KEY, Body=other, Metadata=labels)
    again = run(stored.server, stored.bucket, stored.folder, "get", KEY)
    assert again.returncode == 0, again.stderr
    assert "is left of fetching another dump" in again.stderr
    assert stored.files()["java_pid1.hprof"] == hashlib.sha256(other).hexdigest()


def test_a_stored_dump_whose_bytes_changed_is_found_out_by_verify_and_never_fetched(stored: Stored) -> None:
    client = stored.server.client()
    labels = client.head_object(Bucket=stored.bucket, Key=KEY)["Metadata"]
    damaged = bytearray(stored.content)
    damaged[20 * MIB] ^= 1
    client.put_object(Bucket=stored.bucket, Key=KEY, Body=bytes(damaged), Metadata=labels)
    verified = run(stored.server, stored.bucket, stored.folder, "verify", KEY)
    assert (verified.returncode, verified.stdout.split()[0]) == (1, "damaged")
    fetched = run(stored.server, stored.bucket, stored.folder, "get", KEY)
    assert fetched.returncode == 1
    assert "arrived damaged" in fetched.stderr
    assert "java_pid1.hprof" not in stored.files()


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AWS_SECRET_ACCESS_KEY": "wrong"}, "AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials were found"),
        ({"S3_BUCKET": "no-such-bucket-here"}, "correct S3_BUCKET"),
    ],
)
@pytest.mark.parametrize("words", [("ls",), ("get", "x"), ("verify", "x")])
def test_what_the_store_refuses_is_said_with_what_to_do(
    swift: StoreServer, tmp_path: Path, words: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    environment = {**os.environ, **swift.environment(swift.new_bucket()), **variables}
    ended = subprocess.run(
        [sys.executable, "-m", "dumpagent", *words],
        env={name: value for name, value in environment.items() if value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "hint:" in ended.stderr
    assert "s3:PutObject" not in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_dump_of_a_real_jvm_comes_back_byte_for_byte(
    moto: StoreServer, tmp_path: Path, any_jdk: Jdk
) -> None:
    root = tmp_path / "dump"
    (root / "bank" / "ledger").mkdir(parents=True)
    path = root / "bank" / "ledger" / "java_pid1.hprof"
    any_jdk.run_oom(path, xmx_mib=24)
    bucket = moto.new_bucket()
    upload(moto, bucket, root, S3_PREFIX="prod", CLAIM="false")
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "dumpagent",
            "get",
            "--latest",
            "--app",
            "bank",
            "--node",
            "worker-*",
            "-o",
            "mine.hprof",
        ],
        env={**os.environ, **moto.environment(bucket), "S3_PREFIX": "prod"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "mine.hprof").read_bytes() == path.read_bytes()
