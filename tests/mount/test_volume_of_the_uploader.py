"""The real uploader on a volume that goes away and comes back, that is full, and that is read-only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.children import end
from tests.harness.hprof import Maker
from tests.harness.stores.server import StoreServer, free_ports
from tests.mount.container import Container

pytestmark = pytest.mark.slow
MAKE = Maker()
# Writes the dump `sys.argv[1]` until the file `sys.argv[2]` comes up, as a JVM that is slow.
SLOW_WRITER = """
import os, sys, time
content = open(sys.argv[3], "rb").read()
with open(sys.argv[1], "wb", buffering=0) as dump:
    dump.write(content[:100])
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.05)
    dump.write(content[100:])
"""


class Uploader:
    """A node's mount namespace with `dumpagent upload` in it. `root` is DUMP_ROOT; nothing is mounted there at first."""

    def __init__(self, base: Path, store: StoreServer) -> None:
        self.base, self.store, self.bucket = base, store, store.new_bucket()
        self.container = Container()
        self.root = base / "mnt" / "dump"
        self.root.mkdir(parents=True)
        (base / "run").mkdir()
        self.lines: list[dict[str, object]] = []
        self.agent: subprocess.Popen[str] | None = None

    def volume(self, name: str, options: str = "size=64m") -> Path:
        """Make a tmpfs and give its path, which is not DUMP_ROOT."""
        path = self.base / name
        path.mkdir()
        self.container.run("mount('v', path, 0, 'tmpfs', options)", path=str(path), options=options)
        return path

    def bind(self, volume: Path) -> None:
        self.container.run("mount(volume, root, MS_BIND)", volume=str(volume), root=str(self.root))

    def unbind(self) -> None:
        self.container.run("umount(root, 2)", root=str(self.root))

    def write(self, path: Path, content: bytes) -> None:
        self.container.run(
            "open(path, 'wb').write(bytes.fromhex(content))", path=str(path), content=content.hex()
        )

    def start(self, **variables: str) -> None:
        """Start the uploader; it is told by `agent_started`."""
        (self.port,) = free_ports(1)
        settings = {
            "DUMP_ROOT": str(self.root), "WATCH_INTERVAL": "1", "METRICS_PORT": str(self.port), "LOG_FORMAT": "json",
            "RUNTIME_DIR": str(self.base / "run"), "NODE_NAME": "n", "METRICS_ADDRESS": "127.0.0.1",
        }  # fmt: skip
        self.agent = self.container.popen(
            [sys.executable, "-m", "dumpagent", "upload"],
            env={**os.environ, **self.store.environment(self.bucket), **settings, **variables},
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        threading.Thread(target=self._read, args=(self.agent,), daemon=True).start()

    def _read(self, agent: subprocess.Popen[str]) -> None:
        assert agent.stderr is not None
        for line in agent.stderr:
            self.lines.append(json.loads(line))

    def stop(self) -> None:
        if self.agent:
            end(self.agent)
            self.agent = None

    def told(self, event: str) -> list[dict[str, object]]:
        return [line for line in list(self.lines) if line["event"] == event]

    def until(self, event: str, count: int = 1, *, within_s: float = 90) -> None:
        deadline = time.monotonic() + within_s
        while len(self.told(event)) < count:
            assert time.monotonic() < deadline, f"no {count} x {event}: {self.lines}"
            assert self.agent is not None
            assert self.agent.poll() is None, f"the agent ended: {self.lines}"
            time.sleep(0.05)

    def until_there_is_room(self, volume: Path, *, within_s: float = 30) -> None:
        """A deleted file's blocks and inode are free once nobody has it open: the search for its thread may still read."""
        deadline = time.monotonic() + within_s
        question = "[(s.f_bavail, s.f_favail) for s in [__import__('os').statvfs(path)]][0]"
        while not all(self.container.run(question, path=str(volume))):
            assert time.monotonic() < deadline, f"the volume stays full: {self.lines}"
            time.sleep(0.1)

    def counts(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        names = {
            "seen": "seen_total",
            "uploaded": "uploaded_total",
            "failed": "failed_total",
            "pending": "pending",
        }
        values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: int(float(values[f"dumpagent_dumps_{metric}"])) for name, metric in names.items()}


@pytest.fixture
def uploader(tmp_path: Path, moto: StoreServer) -> Iterator[Uploader]:
    made = Uploader(tmp_path, moto)
    try:
        yield made
    finally:
        made.stop()
        made.container.close()


def test_a_volume_that_is_unmounted_under_load_and_comes_back_changes_no_counter(uploader: Uploader) -> None:
    """Nor does another volume in its place, an empty one, or the node's own directory: no dump is called lost."""
    home, other, empty = uploader.volume("home"), uploader.volume("other"), uploader.volume("empty")
    uploader.bind(home)
    uploader.start(FILE_STABLE_TIME="3600", CLAIM="false")
    uploader.until("agent_started")
    for number in (1, 2):
        uploader.write(home / f"java_pid{number}.hprof", MAKE.dump(segments=number))
    uploader.write(home / "cut.hprof", MAKE.dump()[:-9])
    whole = uploader.base / "whole"
    whole.write_bytes(MAKE.dump(segments=7))
    go_on = uploader.base / "go-on"
    words = [sys.executable, "-c", SLOW_WRITER, str(uploader.root / "slow.hprof"), str(go_on), str(whole)]
    writer = uploader.container.popen(words)
    try:
        uploader.until("dump_uploaded", 2)
        uploader.until("dump_found", 4)
        before = uploader.counts()
        assert before == {"seen": 4, "uploaded": 2, "failed": 0, "pending": 2}
        uploader.unbind()
        uploader.until("volume_away")
        time.sleep(3)
        assert uploader.counts() == before
        uploader.write(other / "x.hprof", MAKE.dump(segments=5))
        uploader.bind(other)
        uploader.until("dump_uploaded", 3)
        with_other = {"seen": 5, "uploaded": 3, "failed": 0, "pending": 2}
        assert uploader.counts() == with_other
        uploader.unbind()
        uploader.bind(empty)
        time.sleep(3)
        assert uploader.counts() == with_other
        uploader.unbind()
        uploader.bind(home)
        time.sleep(3)
        assert uploader.counts() == with_other
        go_on.touch()
        uploader.until("dump_uploaded", 4)
        assert uploader.counts() == {"seen": 5, "uploaded": 4, "failed": 0, "pending": 1}
    finally:
        go_on.touch()
        writer.wait(10)
    assert not uploader.told("dump_gone")
    assert not uploader.told("receipts_pruned")


def no_blocks(uploader: Uploader) -> None:
    uploader.container.run(
        "import os\nfd = os.open(path, os.O_WRONLY | os.O_CREAT)\n"
        "for size in (1 << 16, 512):\n"
        "    try:\n"
        "        while os.write(fd, bytes(size)): pass\n"
        "    except OSError: pass\n"
        "os.close(fd)",
        path=str(uploader.root / "filler"),
    )


def no_inodes(uploader: Uploader) -> None:
    uploader.container.run(
        "import os\nos.mkdir(path)\nn = 0\n"
        "try:\n"
        "    while True:\n"
        "        os.close(os.open(f'{path}/{n}', os.O_WRONLY | os.O_CREAT)); n += 1\n"
        "except OSError: pass",
        path=str(uploader.root / "fillers"),
    )


def tmpfs(uploader: Uploader) -> Path:
    return uploader.volume("home", "size=24m,nr_inodes=2000")


def ext4(uploader: Uploader) -> Path:
    """As the kubelet formats it: no block is reserved for root."""
    image, path = uploader.base / "image", uploader.base / "home"
    with image.open("wb") as file:
        file.truncate(40 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m0", "-N", "2000", str(image)], check=True)
    path.mkdir()
    mounted = uploader.container.popen(["mount", "-o", "loop", str(image), str(path)])
    assert mounted.wait(30) == 0
    return path


@pytest.mark.timeout(300)
@pytest.mark.parametrize("volume", [tmpfs, ext4])
@pytest.mark.parametrize("fill", [no_blocks, no_inodes])
def test_on_a_full_volume_the_agent_starts_and_makes_room_from_what_the_store_has(
    uploader: Uploader, volume: Callable[[Uploader], Path], fill: Callable[[Uploader], None]
) -> None:
    """Neither a receipt, nor a rename, nor a deletion needs a block or an inode that is not there."""
    home = volume(uploader)
    uploader.bind(home)
    uploader.write(home / "java_pid1.hprof", MAKE.dump(segments=300, segment_bytes=10_000))
    uploader.start(LOCAL_MIN_FREE="99")
    uploader.until("dump_uploaded")
    uploader.stop()
    uploader.lines.clear()
    fill(uploader)
    uploader.start(LOCAL_MIN_FREE="99")
    uploader.until("dump_deleted", within_s=150)
    counts = uploader.counts()
    assert (counts["failed"], counts["pending"]) == (0, 0)
    uploader.until_there_is_room(home)
    uploader.write(home / "java_pid1.hprof", MAKE.dump(segments=3))
    uploader.until("dump_uploaded", within_s=60)
    assert not uploader.told("agent_faulty")
    assert not uploader.told("dump_gone")
    stored = [key for key in _keys(uploader) if key.endswith(".hprof") and ".dumpagent" not in key]
    assert len(stored) == 2


def test_on_a_read_only_volume_dumps_are_stored_and_what_cannot_be_written_is_told(
    uploader: Uploader,
) -> None:
    home = uploader.volume("home")
    uploader.write(home / "java_pid1.hprof", MAKE.dump(segments=3))
    uploader.bind(home)
    uploader.container.run("mount(None, root, MS_REMOUNT | MS_BIND | MS_RDONLY)", root=str(uploader.root))
    for _ in range(2):
        uploader.lines.clear()
        uploader.start()
        uploader.until("state_unwritable")
        uploader.until("dump_uploaded") if _ == 0 else uploader.until("dump_already_stored")
        assert uploader.counts() == {"seen": 1, "uploaded": 1, "failed": 0, "pending": 0}
        assert not uploader.told("agent_faulty")
        uploader.stop()
    assert [key for key in _keys(uploader) if ".dumpagent" not in key] == ["java_pid1.hprof"]


def _keys(uploader: Uploader) -> list[str]:
    listing = uploader.store.client().list_objects_v2(Bucket=uploader.bucket)
    return [item["Key"] for item in listing.get("Contents", [])]
