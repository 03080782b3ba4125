"""From a dying JVM to the store: the real agent, a real JVM, an S3 server."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import pytest

from tests.harness.children import end, start
from tests.harness.hprof import Maker
from tests.harness.jvm import PINNED, Jdk, pinned_jdk
from tests.harness.stores.server import StoreServer, is_dump_key

pytestmark = pytest.mark.slow


class Agent:
    """A running `dumpagent upload`; `lines` are its log, as it comes."""

    def __init__(
        self, root: Path, store: StoreServer, bucket: str, *, without: str = "", **variables: str
    ) -> None:
        """`without` names a limit of /proc/sys/user that is 0 for the agent, in a user namespace of its own."""
        settings = {
            "DUMP_ROOT": str(root),
            "FILE_STABLE_TIME": "2",
            "WATCH_INTERVAL": "600",
            "METRICS_PORT": "0",
        }
        environment = {
            **os.environ,
            **store.environment(bucket),
            **settings,
            "LOG_FORMAT": "json",
            **variables,
        }
        self.lines: list[dict[str, object]] = []
        limited = (
            "unshare",
            "--user",
            "--map-root-user",
            "sh",
            "-c",
            f'echo 0 > /proc/sys/user/{without}; exec "$@"',
            "sh",
        )
        self._child = start(
            [*(limited if without else ()), sys.executable, "-m", "dumpagent", "upload"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            self.lines.append({"at": time.monotonic(), **json.loads(line)})

    @property
    def pid(self) -> int:
        return self._child.pid

    def has_loaded_tls(self) -> bool:
        """Say whether the SDK is in the daemon: nothing else of it needs Python's ssl module."""
        return "_ssl." in Path(f"/proc/{self._child.pid}/maps").read_text()

    def of(self, event: str) -> list[dict[str, object]]:
        return [line for line in list(self.lines) if line["event"] == event]

    def wait_for(self, event: str, count: int = 1, *, timeout_s: float = 60) -> list[dict[str, object]]:
        until = time.monotonic() + timeout_s
        while len(found := self.of(event)) < count:
            assert time.monotonic() < until, f"no {count} x {event} in {timeout_s} s: {self.lines}"
            assert self._child.poll() is None, f"the agent ended: {self.lines}"
            time.sleep(0.02)
        return found

    def __enter__(self) -> Agent:
        self.wait_for("agent_started")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end(self._child)
        self._reader.join(10)


@pytest.fixture
def bucket(moto: StoreServer) -> str:
    return moto.new_bucket()


@pytest.fixture
def stored(moto: StoreServer, bucket: str) -> Callable[[], dict[str, int]]:
    client = moto.client()

    def look() -> dict[str, int]:
        listing = client.list_objects_v2(Bucket=bucket)
        return {item["Key"]: item["Size"] for item in listing.get("Contents", []) if is_dump_key(item["Key"])}

    return look


def test_a_dump_is_uploaded_when_its_jvm_closes_it_although_the_next_scan_is_ten_minutes_away(
    moto: StoreServer, bucket: str, stored: Callable[[], dict[str, int]], tmp_path: Path, any_jdk: Jdk
) -> None:
    (tmp_path / "shop" / "pod-1").mkdir(parents=True)
    with Agent(tmp_path, moto, bucket) as agent:
        any_jdk.run_oom(tmp_path / "shop" / "pod-1" / "java_pid1.hprof")
        (uploaded,) = agent.wait_for("dump_uploaded")
        (found,) = (tmp_path / "shop" / "pod-1").iterdir()
        assert stored() == {"shop/pod-1/java_pid1.hprof": found.stat().st_size}
    assert uploaded["verdict"] == "complete"
    assert uploaded["cause"] == "oom"
    assert found.name != "java_pid1.hprof"


def test_the_sdk_is_loaded_while_the_first_dump_is_written_and_not_before(
    moto: StoreServer, bucket: str, tmp_path: Path
) -> None:
    """It is most of the daemon's memory, and with a fifth of a core most of the time until the first byte is sent."""
    with Agent(tmp_path, moto, bucket) as agent:
        agent.wait_for("store_answered")  # asked by a process of its own
        assert not agent.has_loaded_tls()
        with (tmp_path / "java_pid1.hprof").open("wb") as dump:
            dump.write(Maker().dump()[:100])
            dump.flush()
            until = time.monotonic() + 60
            while not agent.has_loaded_tls():
                assert time.monotonic() < until
                time.sleep(0.05)
            assert agent.of("dump_uploaded") == []
            dump.write(Maker().dump()[100:])
        agent.wait_for("dump_uploaded")


@pytest.mark.parametrize("version", PINNED)
def test_two_out_of_memory_errors_under_one_name_are_both_stored(
    moto: StoreServer, bucket: str, stored: Callable[[], dict[str, int]], tmp_path: Path, version: str
) -> None:
    """On every JVM: the second finds its name free, and what the first wrote is whole."""
    with Agent(tmp_path, moto, bucket) as agent:
        for number in (1, 2):
            said = pinned_jdk(version).run_oom(tmp_path / "java_pid1.hprof", xmx_mib=24).stdout
            assert "Unable to create" not in said
            agent.wait_for("dump_claimed", number)
        uploaded = agent.wait_for("dump_uploaded", 2)
    assert [(line["verdict"], line["cause"]) for line in uploaded] == [("complete", "oom")] * 2
    assert sorted(stored().values()) == sorted(path.stat().st_size for path in tmp_path.glob("*.hprof"))
    assert len(stored()) == 2


@pytest.mark.parametrize("limit", ["max_inotify_instances", "max_inotify_watches"])
def test_a_node_without_inotify_ships_at_the_next_scan(
    moto: StoreServer, bucket: str, stored: Callable[[], dict[str, int]], tmp_path: Path, limit: str
) -> None:
    """The kernel refuses (EMFILE, ENOSPC): told once, and a dump waits for the next scan, not for the one after it."""
    interval_s = 5.0
    with Agent(tmp_path, moto, bucket, without=limit, WATCH_INTERVAL=str(int(interval_s))) as agent:
        agent.wait_for("store_answered")
        delays = []
        for number in range(1, 5):
            time.sleep(interval_s * number / 5)  # at any moment between two scans
            (tmp_path / f"java_pid{number}.hprof").write_bytes(Maker().dump(segments=number))
            closed = time.monotonic()
            agent.wait_for("dump_claimed", number)
            delays.append(time.monotonic() - closed)
        agent.wait_for("dump_uploaded", 4)
    assert len(agent.of("watch_limited") + agent.of("watch_unavailable")) == 1
    assert len(stored()) == 4
    # The claim starts each wait right after a scan, so a dump that missed one would wait for more than an interval, all four of
    # them. A machine that stalls makes one or two late.
    assert statistics.median_low(delays) < interval_s
    assert max(delays) < 2 * interval_s + 20


def test_ten_out_of_memory_errors_of_a_restarting_jvm_give_ten_dumps(
    moto: StoreServer, bucket: str, stored: Callable[[], dict[str, int]], tmp_path: Path, any_jdk: Jdk
) -> None:
    """A container's JVM is always pid 1: without the claim it would write one dump and lose nine."""
    with Agent(tmp_path, moto, bucket) as agent:
        for number in range(1, 11):
            said = any_jdk.run_oom(tmp_path / "java_pid1.hprof", xmx_mib=16).stdout
            assert "Unable to create" not in said
            agent.wait_for("dump_claimed", number)
        agent.wait_for("dump_uploaded", 10)
        assert len(stored()) == 10
        sizes = sorted(path.stat().st_size for path in tmp_path.glob("*.hprof"))
    assert sorted(stored().values()) == sizes
    assert len(sizes) == 10


def test_a_dump_in_a_directory_that_is_made_for_it_needs_no_scan_either(
    moto: StoreServer, bucket: str, stored: Callable[[], dict[str, int]], tmp_path: Path
) -> None:
    with Agent(tmp_path, moto, bucket) as agent:
        for number in range(5):
            folder = tmp_path / f"ns-{number}" / "app"
            folder.mkdir(parents=True)
            (folder / "java_pid1.hprof").write_bytes(Maker().dump(segments=number + 1))
        agent.wait_for("dump_uploaded", 5)
    assert set(stored()) == {f"ns-{number}/app/java_pid1.hprof" for number in range(5)}


def test_a_jvm_that_is_killed_in_mid_dump_leaves_a_truncated_dump_that_is_stored_and_frees_its_name(
    moto: StoreServer,
    bucket: str,
    stored: Callable[[], dict[str, int]],
    tmp_path: Path,
    any_jdk: Jdk,
) -> None:
    path = tmp_path / "java_pid1.hprof"
    with Agent(tmp_path, moto, bucket) as agent:
        with any_jdk.start_leaky(tmp_path, xmx_mib=400) as app:
            app.ask("fill 250")
            app.tell(f"dump {path} all")
            while not path.exists() or path.stat().st_size < 1 << 20:
                time.sleep(0.001)
            app.kill()
        (uploaded,) = agent.wait_for("dump_uploaded")
        assert uploaded["verdict"] == "truncated"
        assert not path.exists()
    assert list(stored()) == ["java_pid1.hprof"]


def test_a_jvm_that_is_killed_in_mid_dump_and_restarted_finds_its_name_free_ten_seconds_later(
    moto: StoreServer,
    bucket: str,
    stored: Callable[[], dict[str, int]],
    tmp_path: Path,
    any_jdk: Jdk,
) -> None:
    """The upload of the cut dump waits FILE_STABLE_TIME; its name must not."""
    path = tmp_path / "java_pid1.hprof"
    with Agent(tmp_path, moto, bucket, FILE_STABLE_TIME="25") as agent:
        with any_jdk.start_leaky(tmp_path, xmx_mib=400) as app:
            app.ask("fill 250")
            app.tell(f"dump {path} all")
            while not path.exists() or path.stat().st_size < 1 << 20:
                time.sleep(0.001)
            app.kill()
        agent.wait_for("dump_claimed", timeout_s=10)
        assert "Unable to create" not in any_jdk.run_oom(path, xmx_mib=16).stdout
        uploaded = agent.wait_for("dump_uploaded", 2)
    assert [line["verdict"] for line in uploaded] == ["complete", "truncated"]
    assert len(stored()) == 2


def test_what_a_dying_jvm_leaves_stands_beside_its_dump_and_is_fetched_with_it(
    moto: StoreServer, bucket: str, tmp_path: Path, any_jdk: Jdk
) -> None:
    """Error file, GC log and flight recording of one JVM that runs out of memory and crashes on it."""
    folder = tmp_path / "dump" / "shop_cart-0"
    folder.mkdir(parents=True)
    options = [
        f"-XX:ErrorFile={folder}/hs_err_pid%p.log", "-XX:+CrashOnOutOfMemoryError",
        f"-Xlog:gc*:file={folder}/gc.log", f"-XX:StartFlightRecording=filename={folder}/rec.jfr",
    ]  # fmt: skip
    with Agent(tmp_path / "dump", moto, bucket) as agent:
        any_jdk.run_oom(folder / "java_pid1.hprof", options=options)
        (uploaded,) = agent.wait_for("dump_uploaded")
        left = [path for path in folder.iterdir() if ".hprof" not in path.name and path.stat().st_size]
        assert {"gc.log"} < {path.name for path in left}
        agent.wait_for("companion_uploaded", len([path for path in left if path.suffix in (".log", ".jfr")]))
        assert all(line["at"] > uploaded["at"] for line in agent.of("companion_uploaded"))  # type: ignore[operator]
    environment = {**os.environ, **moto.environment(bucket), "LOG_FORMAT": "json"}
    command = [sys.executable, "-m", "dumpagent"]
    shown = subprocess.run([*command, "ls"], env=environment, capture_output=True, text=True, check=True)
    assert "+ gc.log" in shown.stdout
    got = tmp_path / "got.hprof"
    subprocess.run(
        [*command, "get", "--latest", "--all", "-o", str(got)],
        env=environment,
        capture_output=True,
        check=True,
    )
    fetched = {path.name: path.read_bytes() for path in (tmp_path / "got.hprof.companions").iterdir()}
    assert fetched == {path.name: path.read_bytes() for path in left if path.suffix in (".log", ".jfr")}
