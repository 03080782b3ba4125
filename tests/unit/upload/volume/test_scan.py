"""The scan finds every dump, whatever else lies on the volume, and never stops."""

from __future__ import annotations

import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from dumpagent.dumps.globs import Globs
from dumpagent.dumps.recognise import FileRules, Recogniser
from dumpagent.upload.volume.scan import Scanner, scan
from tests.harness.hprof import Maker, members
from tests.unit.upload.conftest import Volume

DUMP = Maker().dump()
PHD = b"\x00\x12portable heap dump" + bytes(40)
CORE = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x04\x00\x3e\x00" + bytes(100)


def test_dumps_are_found_in_every_depth_by_the_names_that_jvms_use(volume: Volume) -> None:
    wanted = {
        volume.dump(name, b"x")
        for name in (
            "java_pid1.hprof",
            "a/java_pid1.hprof.gz",
            "a/b/java_pid1.hprof.1",
            "a/ b c/é\n.hprof",
            ".hidden/x.hprof",
        )
    }
    for other in ("core.1", "java_pid1.hprof.p0", "java_pid1.hprof.tmp", "hprof", "a/notes.txt"):
        volume.dump(other, b"x")
    found = scan(str(volume.root))
    assert {dump.relpath for dump in found.dumps} == wanted
    assert found.complete


def test_only_regular_files_are_dumps(volume: Volume, tmp_path: Path) -> None:
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "secret.hprof").write_bytes(b"x")
    os.symlink(outside / "secret.hprof", volume.root / "link.hprof")
    os.symlink(outside, volume.root / "linked-directory")
    os.symlink(volume.root, volume.root / "loop")
    os.mkfifo(volume.root / "fifo.hprof")
    (volume.root / "directory.hprof").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(volume.root / "socket.hprof"))
        found = scan(str(volume.root))
    assert found.dumps == []
    assert found.complete


@pytest.mark.parametrize(
    "name", ["heap", "app_dump.href", "$(pwd)", "app.HPROF", "oom.dump", "gc.log", "x.p1"]
)
@pytest.mark.parametrize(
    "content",
    [DUMP, members(DUMP), b"JAVA PROFILE 1.0.3\0" + bytes(9), PHD],
    ids=["hprof", "gzip", "android", "openj9"],
)
def test_a_heap_dump_is_found_whatever_its_name(volume: Volume, name: str, content: bytes) -> None:
    """HeapDumpPath may be any name, and not every JVM is HotSpot."""
    volume.dump(f"shop/{name}", content)
    volume.dump("shop/notes", b"nothing")
    assert [dump.relpath for dump in scan(str(volume.root)).dumps] == [f"shop/{name}"]


def test_the_segment_files_of_a_dump_of_any_name_are_its_own(volume: Volume) -> None:
    volume.dump("shop/heap", DUMP[:100])
    volume.dump("shop/heap.p0", b"\x1c" + bytes(100))
    volume.dump("shop/notes.p0", b"\x1c" + bytes(100))
    found = scan(str(volume.root))
    assert [dump.relpath for dump in found.dumps] == ["shop/heap"]
    assert [dump.relpath for dump in found.parts] == ["shop/heap.p0"]


def test_core_files_are_left_alone_unless_they_are_named_as_openj9_names_them(volume: Volume) -> None:
    volume.dump("core.4711", CORE)
    volume.dump("core.20260101.120000.1.0001.dmp", CORE)
    found = scan(str(volume.root))
    assert [dump.relpath for dump in found.dumps] == ["core.20260101.120000.1.0001.dmp"]
    assert [dump.relpath for dump in found.left_alone] == ["core.4711"]


def test_settings_add_dumps_and_leave_files_and_directories_alone(volume: Volume) -> None:
    for name in (
        "a/x.dump",
        "a/y.hprof",
        "scratch/z.hprof",
        "b/scratch/z.hprof",
        "shop/old/x.hprof",
        "a/heap",
    ):
        volume.dump(name, b"x" if name != "a/heap" else DUMP)
    rules = FileRules(include=Globs("*.dump"), exclude=Globs("scratch, shop/old heap"))
    found = scan(str(volume.root), recogniser=Recogniser(rules))
    assert sorted(dump.relpath for dump in found.dumps) == ["a/x.dump", "a/y.hprof"]


@pytest.mark.parametrize(
    "directory",
    [".snapshot/hourly.0", ".snapshots", ".zfs/snapshot/a", "lost+found", ".Trash-1000", "~snapshot"],
)
def test_snapshots_and_leftovers_of_the_storage_are_not_entered(volume: Volume, directory: str) -> None:
    """Each held a copy of the dump, which was uploaded once more for each snapshot."""
    volume.dump("shop/java_pid1.hprof", b"x")
    volume.dump(f"{directory}/shop/java_pid1.hprof", b"x")
    volume.dump(f"shop/{directory}/java_pid1.hprof", b"x")
    scanner = Scanner(str(volume.root))
    assert [each.dump.relpath for each in scanner.step(lambda: False)] == ["shop/java_pid1.hprof"]
    assert set(scanner.not_entered) == {directory.split("/")[0], f"shop/{directory.split('/')[0]}"}


class Known:
    """A tree of files, a recogniser that remembers it, and how many files a scan opens."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.recogniser = Recogniser(now_ns=lambda: time.time_ns() + 10**10)

    def scan(self) -> list[str]:
        return sorted(dump.relpath for dump in scan(str(self.volume.root), recogniser=self.recogniser).dumps)


def test_a_directory_that_did_not_change_is_not_read_again_and_its_dumps_are_still_found(
    volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Known(volume)
    for number in range(20):
        volume.dump(f"a/{number}.log", b"nothing")
    volume.dump("a/heap", DUMP)
    assert known.scan() == ["a/heap"]
    monkeypatch.setattr(os, "scandir", None)
    assert known.scan() == ["a/heap"]


def test_a_new_file_and_a_file_that_was_replaced_are_seen_at_the_next_scan(volume: Volume) -> None:
    known = Known(volume)
    volume.dump("a/one", b"nothing")
    volume.dump("a/b/deep", b"nothing")
    assert known.scan() == []
    volume.dump("a/two", DUMP)
    (volume.root / "a" / "one").unlink()
    volume.dump("a/one", DUMP)
    assert known.scan() == ["a/one", "a/two"]
    volume.dump("a/c/three", DUMP)
    assert known.scan() == ["a/c/three", "a/one", "a/two"]


def test_what_is_written_over_in_place_is_seen_after_some_scans_even_without_an_event(volume: Volume) -> None:
    known = Known(volume)
    path = volume.dump("a/one", b"nothing")
    volume.dump("a/empty", b"")
    known.scan()
    (volume.root / path).write_bytes(DUMP)
    (volume.root / "a/empty").write_bytes(DUMP)
    assert any(known.scan() == ["a/empty", "a/one"] for _ in range(16))


def test_a_directory_that_changed_a_moment_ago_is_not_believed(volume: Volume) -> None:
    """A file made in the same tick as the listing does not change the directory's time."""
    recogniser = Recogniser()
    volume.dump("a/one", b"nothing")
    scan(str(volume.root), recogniser=recogniser)
    at = os.stat(volume.root / "a").st_mtime_ns
    volume.dump("a/heap", DUMP)
    os.utime(volume.root / "a", ns=(at, at))
    assert len(scan(str(volume.root), recogniser=recogniser).dumps) == 1


def test_a_directory_with_a_dumps_name_is_looked_into(volume: Volume) -> None:
    volume.dump("app.hprof/java_pid1.hprof", b"x")
    assert [dump.relpath for dump in scan(str(volume.root)).dumps] == ["app.hprof/java_pid1.hprof"]


def test_a_file_with_two_names_is_one_dump(volume: Volume) -> None:
    volume.dump("a.hprof", b"x")
    os.link(volume.root / "a.hprof", volume.root / "b.hprof")
    assert len(scan(str(volume.root)).dumps) == 1


def test_a_name_that_is_no_utf8_is_found_and_can_be_opened(volume: Volume) -> None:
    raw = os.fsencode(volume.root) + b"/caf\xe9.hprof"
    Path(os.fsdecode(raw)).write_bytes(b"abc")
    (dump,) = scan(str(volume.root)).dumps
    assert Path(dump.path).read_bytes() == b"abc"


def test_the_state_directory_is_left_out(volume: Volume) -> None:
    volume.dump(".dumpagent/x.hprof", b"x")
    assert scan(str(volume.root), skip=frozenset({f"{volume.root}/.dumpagent"})).dumps == []


def test_the_oldest_dump_comes_first(volume: Volume) -> None:
    for name, at_s in (("b.hprof", 300), ("c.hprof", 100), ("a.hprof", 200)):
        volume.dump(name, b"x")
        os.utime(volume.root / name, (at_s, at_s))
    assert [dump.relpath for dump in scan(str(volume.root)).dumps] == ["c.hprof", "a.hprof", "b.hprof"]


def test_a_missing_root_is_no_empty_root(tmp_path: Path) -> None:
    found = scan(str(tmp_path / "not-mounted"))
    assert not found.complete


@pytest.mark.skipif(os.geteuid() != 0, reason="takes away root's rights, so it must be root")
def test_an_unreadable_directory_is_told_and_the_rest_is_found(volume: Volume) -> None:
    """Unknown is not "no": the scan says where it could not look."""
    volume.dump("open/java_pid1.hprof", b"x")
    volume.dump("closed/java_pid1.hprof", b"x")
    os.chmod(volume.root / "closed", 0o700)
    for path in (volume.root, *volume.root.parents):
        if path.stat().st_uid == 0 and path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(0o755)
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.setresuid(65534, 65534, 65534)
        found = scan(str(volume.root))
        said = f"{[dump.relpath for dump in found.dumps]} {[*found.unreadable.items()]}"
        os.write(write_fd, said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write_fd)
    said = os.read(read_fd, 4096).decode()
    os.close(read_fd)
    assert said == f"['open/java_pid1.hprof'] [('{volume.root}/closed', 'Permission denied')]"


def test_directories_that_vanish_meanwhile_do_not_stop_the_scan(volume: Volume) -> None:
    volume.dump("stays/java_pid1.hprof", b"x")
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            for number in range(30):
                volume.dump(f"comes-and-goes/{number}/x.hprof", b"x")
            for number in range(30):
                os.unlink(volume.root / f"comes-and-goes/{number}/x.hprof")
                os.rmdir(volume.root / f"comes-and-goes/{number}")

    churner = threading.Thread(target=churn)
    churner.start()
    try:
        for _ in range(200):
            found = scan(str(volume.root))
            assert "stays/java_pid1.hprof" in {dump.relpath for dump in found.dumps}
            assert found.complete
    finally:
        over.set()
        churner.join()


def peak_bytes(look: Callable[[], object]) -> int:
    tracemalloc.start()
    look()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_a_directory_of_a_million_long_names_costs_no_memory(volume: Volume) -> None:
    """A name may have 255 bytes: a million of them filled the pod's memory, at every start."""
    for number in range(20_000):
        (volume.root / f"{number:0>249}.hprof").touch()
    scanner = Scanner(str(volume.root))
    assert peak_bytes(lambda: drained(scanner)) < 4 << 20


def test_a_directory_of_a_million_directories_costs_no_memory_and_each_is_looked_into(volume: Volume) -> None:
    for number in range(6000):
        (volume.root / f"{number:0>250}").mkdir()
    wanted = {f"{number:0>250}/x.hprof" for number in range(0, 6000, 500)}
    for relpath in wanted:
        (volume.root / relpath).touch()
    found: list[str] = []
    scanner = Scanner(str(volume.root))
    assert peak_bytes(lambda: found.extend(drained(scanner))) < 4 << 20
    assert set(found) == wanted
    assert {dump.relpath for dump in scan(str(volume.root)).dumps} == wanted


def test_what_is_not_entered_costs_no_memory_and_holds_up_nobody(volume: Volume) -> None:
    for number in range(5000):
        (volume.root / f".Trash-{number:0>200}").mkdir()
    scanner = Scanner(str(volume.root))
    steps = 0
    while not scanner.finished:
        scanner.step(lambda: True)
        steps += 1
    assert steps > 1000
    assert len(scanner.not_entered) == 1000


def test_a_users_linked_files_cost_no_memory_and_another_users_one_is_found(volume: Volume) -> None:
    for number in range(6000):
        (volume.root / f"a{number}.hprof").touch()
        os.link(volume.root / f"a{number}.hprof", volume.root / f"b{number}.hprof")
        os.chown(volume.root / f"a{number}.hprof", 12345, 12345)
    (volume.root / "shop.hprof").touch()
    os.link(volume.root / "shop.hprof", volume.root / "shop2.hprof")
    os.chown(volume.root / "shop.hprof", 10001, 10001)
    scanner = Scanner(str(volume.root))
    found = drained(scanner)
    assert len(found) == 5001
    assert scanner.passed_over[12345]


def drained(scanner: Scanner) -> list[str]:
    """Give the paths that the scan finds, and forget all else, as the finder does."""
    found: list[str] = []
    while not scanner.finished:
        for each in scanner.step(lambda: True):
            if len(found) < 10_000:
                found.append(
                    each.dump.relpath
                    if len(each.dump.relpath) < 250 or "x.hprof" in each.dump.relpath
                    else ""
                )
    return found
