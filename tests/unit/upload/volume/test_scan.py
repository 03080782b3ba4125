"""The scan finds every dump, whatever else lies on the volume, and never stops."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from dumpagent.upload.volume.scan import scan
from tests.unit.upload.conftest import Volume


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
    for name, time in (("b.hprof", 300), ("c.hprof", 100), ("a.hprof", 200)):
        volume.dump(name, b"x")
        os.utime(volume.root / name, (time, time))
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
