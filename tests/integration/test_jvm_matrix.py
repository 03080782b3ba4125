"""Every JVM, every way of dumping: polled while it writes, a dump is never called complete or cut a moment too early."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dumpagent.cli.commands.inspect import as_dict, inspect
from dumpagent.dumps.files import segment_files_of
from dumpagent.dumps.model import Cause, DumpFile, State, Verdict
from dumpagent.dumps.owner import Owner, owner_of
from dumpagent.kernel.lease import WriterState
from dumpagent.upload.oom_thread import find_thread
from dumpagent.upload.volume.judge import CompletenessJudge
from dumpagent.upload.volume.scan import scan
from tests.harness.hprof import members
from tests.harness.jvm import PINNED, Jdk, pinned_jdk, system_jdk

pytestmark = pytest.mark.slow

POLL_S = 0.05
QUIET_S = 3600.0
_KNOWS_GZIP = 17
_WRITES_PARTS = 22


@pytest.fixture(params=[*PINNED, "system"])
def jdk(request: pytest.FixtureRequest) -> Jdk:
    if request.param != "system":
        return pinned_jdk(request.param)
    own = system_jdk()
    if own is None:
        pytest.skip("no java on PATH")
    return own


@dataclass
class Poll:
    """Judges every dump below `root` each 50 ms, by the kernel's word and, beside it, without."""

    root: Path
    seen: dict[str, list[tuple[State, bool, int]]] = field(default_factory=dict)
    blind_due: list[tuple[str, State, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._judge = CompletenessJudge(quiet_s=QUIET_S)
        self._blind = CompletenessJudge(quiet_s=QUIET_S, take_lease=lambda _fd: WriterState.UNKNOWN)
        self._lock = threading.Lock()  # a judge belongs to one thread at a time
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(POLL_S):
            self.look()

    def look(self) -> dict[str, tuple[DumpFile, Verdict]]:
        with self._lock:
            return self._look()

    def _look(self) -> dict[str, tuple[DumpFile, Verdict]]:
        now = {}
        for dump in scan(str(self.root)).dumps:
            try:
                verdict, blind = self._judge.judge(dump), self._blind.judge(dump)
            except FileNotFoundError:
                continue
            now[dump.relpath] = dump, verdict
            self.seen.setdefault(dump.relpath, []).append((verdict.state, verdict.due, dump.size_bytes))
            if blind.due:
                self.blind_due.append((dump.relpath, blind.state, dump.size_bytes))
        return now

    def __enter__(self) -> Poll:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def confirm(self, *, complete: bool = True) -> dict[str, tuple[DumpFile, Verdict]]:
        """Check the whole story once the JVM is done; give the last verdicts."""
        last = self.look()
        assert last
        for name, (dump, verdict) in last.items():
            assert verdict.state is (State.COMPLETE if complete else State.TRUNCATED), (name, verdict)
            story = self.seen[name]
            for state, due, size_bytes in story:
                if state is State.COMPLETE:
                    # Not due: it was finished between the directory's word on its size and the look inside.
                    assert size_bytes == dump.size_bytes or not due, (name, story)
                elif complete:
                    # A look can fall between the file's creation and its opening: it is empty then, and not due.
                    assert state is State.WRITING or (size_bytes == 0 and not due), (name, story)
            states = [state for state, _, _ in story]
            finished = states.index(verdict.state)
            assert set(states[finished:]) == {verdict.state}, (name, states)
        assert self.blind_due == []
        return last


def dump_by_jcmd(jdk: Jdk, pid: int, path: Path, *options: str) -> None:
    subprocess.run(
        [str(jdk.tool("jcmd")), str(pid), "GC.heap_dump", "-all", *options, str(path)],
        check=True,
        capture_output=True,
        timeout=120,
    )


def test_a_dump_of_an_out_of_memory_error(jdk: Jdk, tmp_path: Path) -> None:
    with Poll(tmp_path) as poll:
        jdk.run_oom(tmp_path, xmx_mib=96)
    ((_, verdict),) = poll.confirm().values()
    assert verdict.facts is not None
    assert verdict.facts.cause is Cause.OOM
    assert verdict.facts.jvm is not None
    assert verdict.facts.jvm.startswith(f'openjdk version "{jdk.major}.')
    assert any("LeakyApp" in frame for frame in verdict.facts.oom_stack)


def test_the_thread_that_ran_out_of_memory_is_named(jdk: Jdk, tmp_path: Path) -> None:
    """Names of two bytes and of one byte a character; from the file as it is, compressed by gzip, and by the JVM."""
    named: list[tuple[str, list[str]]] = [("заказ-☃", [])]
    if jdk.major >= _KNOWS_GZIP:
        named.append(("größe-7", ["-XX:HeapDumpGzipLevel=1"]))
    for name, options in named:
        root = tmp_path / name
        root.mkdir()
        with jdk.start_leaky(root, xmx_mib=48, options=options) as app:
            app.ask(f"oom {name}")
        (dump,) = root.iterdir()
        if not options:
            (root / "packed.hprof.gz").write_bytes(members(dump.read_bytes(), 1 << 20))
        for each in scan(str(root)).dumps:
            assert as_dict(inspect(each.path, classes=0, quick=False))["oom_thread"] == name, each.path
            assert find_thread(each, lambda _bytes: True) == name, each.path


def test_dumps_on_request(jdk: Jdk, tmp_path: Path) -> None:
    with Poll(tmp_path) as poll, jdk.start_leaky(tmp_path, xmx_mib=160) as app:
        app.ask("fill 60")
        app.ask(f"dump {tmp_path}/bean.hprof all")
        dump_by_jcmd(jdk, app.pid, tmp_path / "jcmd.hprof")
        if jdk.major >= _WRITES_PARTS:
            dump_by_jcmd(jdk, app.pid, tmp_path / "parallel.hprof", "-parallel=2")
        if jdk.major >= _KNOWS_GZIP:
            dump_by_jcmd(jdk, app.pid, tmp_path / "packed.hprof.gz", "-gz=1")
        found = poll.confirm()
    assert len(found) == 2 + (jdk.major >= _KNOWS_GZIP) + (jdk.major >= _WRITES_PARTS)
    for _, verdict in found.values():
        assert verdict.facts is not None
        assert verdict.facts.cause is Cause.REQUEST
        assert verdict.facts.threads


def test_a_gzip_dump_of_an_out_of_memory_error(jdk: Jdk, tmp_path: Path) -> None:
    if jdk.major < _KNOWS_GZIP:
        return  # HeapDumpGzipLevel came with 17
    with Poll(tmp_path) as poll:
        jdk.run_oom(tmp_path, xmx_mib=64, options=["-XX:HeapDumpGzipLevel=1"])
    ((dump, verdict),) = poll.confirm().values()
    assert dump.relpath.endswith(".hprof.gz")
    assert verdict.facts is not None
    assert verdict.facts.cause is Cause.OOM


def test_a_directory_that_is_missing_becomes_a_file_of_its_name(jdk: Jdk, tmp_path: Path) -> None:
    """As on the node's own disk while the volume is away: the dump is written, under a name that tells its pod."""
    volume, node = tmp_path / "volume", tmp_path / "node"
    for folder in (volume / "shop_cart-0", node):
        folder.mkdir(parents=True)
    for root in (volume, node):
        jdk.run_oom(root / "shop_cart-0", xmx_mib=16)
    (there,) = (dump.relpath for dump in scan(str(volume)).dumps)
    (away,) = (dump.relpath for dump in scan(str(node)).dumps)
    assert there.startswith("shop_cart-0/java_pid")
    assert away == "shop_cart-0"
    assert owner_of(there) == owner_of(away) == Owner("shop", "cart-0", "cart")


def test_later_dumps_of_one_jvm_are_numbered(jdk: Jdk, tmp_path: Path) -> None:
    """Only one dump is written for OutOfMemoryErrors; with HeapDumpAfterFullGC each full GC writes one more."""
    with Poll(tmp_path) as poll, jdk.start_leaky(tmp_path, xmx_mib=64) as app:
        app.ask("option HeapDumpAfterFullGC true")
        app.ask("gc")
        app.ask("gc")
        app.ask("gc")
        found = poll.confirm()
    assert {f"java_pid{app.pid}.hprof", f"java_pid{app.pid}.hprof.1"} <= set(found)


def _killed_in_mid_dump(
    jdk: Jdk, root: Path, begun: Callable[[], bool], options: list[str], name: str
) -> bool:
    """Kill a JVM while it dumps; say whether it had not finished yet."""
    with Poll(root) as poll:
        with jdk.start_leaky(root, xmx_mib=320, options=options) as app:
            app.ask("fill 160")
            app.tell(f"dump {root}/{name} all")
            while not begun():
                time.sleep(0.001)
            app.kill()
        ((_, verdict),) = poll.look().values()
        assert not verdict.due or verdict.state is State.COMPLETE
        if verdict.state is State.COMPLETE:
            return False
    poll.confirm(complete=False)
    return True


@pytest.mark.parametrize("at_bytes", [1, 2 << 20])
def test_a_jvm_that_is_killed_in_mid_dump_leaves_a_truncated_dump(
    jdk: Jdk, tmp_path: Path, at_bytes: int
) -> None:
    def begun() -> bool:
        found = list(tmp_path.glob("*.hprof*"))
        return sum(path.stat().st_size for path in found if path.exists()) >= at_bytes

    for _ in range(5):
        if _killed_in_mid_dump(jdk, tmp_path, begun, [], "java_pid1.hprof"):
            break
        for path in tmp_path.iterdir():
            path.unlink()
    else:
        raise AssertionError("five dumps were over before the kill came")
    (stub,) = scan(str(tmp_path)).dumps
    if jdk.major >= _WRITES_PARTS and segment_files_of(stub):
        assert "part(s)" in CompletenessJudge(quiet_s=0).judge(stub).reason
    assert CompletenessJudge(quiet_s=0).judge(stub).due


def test_a_disk_that_is_full_leaves_a_truncated_dump(jdk: Jdk, tmp_path: Path) -> None:
    """On a small tmpfs of its own, in a mount namespace that ends with it."""
    mounted = tmp_path / "small"
    mounted.mkdir()
    script = (
        "import sys, json; from pathlib import Path; from tests.integration.test_jvm_matrix import fill_the_disk; "
        "print(json.dumps(fill_the_disk(sys.argv[1], Path(sys.argv[2]))))"
    )
    ran = subprocess.run(
        [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
            'mount -t tmpfs -o size=12m tmpfs "$0" && exec "$@"',
            *(str(mounted), sys.executable, "-c", script, jdk.version, str(mounted)),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    states = json.loads(ran.stdout)
    assert State.COMPLETE.value not in states
    # JDK 25 takes its parts away and leaves a stub, which can be empty.
    assert states[-1] in (State.TRUNCATED.value, State.NOT_A_DUMP.value)


def fill_the_disk(version: str, root: Path) -> list[str]:
    """Dump more than fits below `root`; give the states that were seen meanwhile, the last one after the JVM's end."""
    own = system_jdk()
    jdk = own if version == "system" and own else pinned_jdk(version)
    with Poll(root) as poll:
        jdk.run_oom(root, xmx_mib=96)
    poll.look()
    (story,) = poll.seen.values()
    return [state.value for state, _, _ in story]
