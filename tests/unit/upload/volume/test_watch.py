"""Wake-ups: whatever was closed after writing, or renamed into place, anywhere below the root, is told."""

from __future__ import annotations

import errno
import os
import select
from collections.abc import Iterator
from pathlib import Path

import pytest
from inotify_simple import INotify

from dumpagent.observe.events import Event
from dumpagent.upload.volume.watch import Watch, Woken, open_watch


class Told(list[str]):
    def __call__(self, event: Event, /) -> None:
        assert event.fields()["hint"]
        self.append(event.name)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def watch(tmp_path: Path, told: Told) -> Iterator[Watch]:
    opened = open_watch(str(tmp_path), tell=told, skip=frozenset({f"{tmp_path}/.dumpagent"}))
    assert opened is not None
    with opened:
        assert opened.cover() == Woken()
        yield opened


def woken(watch: Watch) -> set[str]:
    ready, _, _ = select.select([watch], [], [], 5)
    assert ready, "no wake-up"
    answer = watch.read()
    assert not answer.everything
    return answer.relpaths


def test_a_dump_that_is_closed_after_writing_wakes(watch: Watch, tmp_path: Path) -> None:
    with (tmp_path / "java_pid1.hprof").open("wb") as dump:
        dump.write(b"x")
        dump.flush()
        assert watch.read().relpaths == set()
    assert woken(watch) == {"java_pid1.hprof"}


def test_a_dump_that_begins_is_told_and_is_not_finished(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "x.tmp").touch()
    assert not watch.read().begun
    with (tmp_path / "java_pid1.hprof").open("wb"):
        begun = watch.read()
    assert begun.begun
    assert (begun.relpaths, begun.everything) == (set(), False)


def test_a_dump_that_is_renamed_into_place_wakes(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "copy.tmp").write_bytes(b"x")
    watch.read()
    (tmp_path / "copy.tmp").rename(tmp_path / "a.hprof.gz.1")
    assert woken(watch) == {"a.hprof.gz.1"}


def test_files_of_other_names_are_told_apart_from_dumps(watch: Watch, tmp_path: Path) -> None:
    """They may be dumps by what they hold; a log that is written often must not hold up what is a dump by its name."""
    names = {"hs_err.log", "java_pid1.hprof.p0", "heap"}
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    assert watch.read() == Woken(others=names)


def test_a_dump_that_is_linked_into_place_is_told_as_created(watch: Watch, tmp_path: Path) -> None:
    """The rescue names what it copied by link(2), which closes nothing."""
    (tmp_path / "copy").write_bytes(b"x")
    watch.read()
    os.link(tmp_path / "copy", tmp_path / "a.hprof")
    assert watch.read() == Woken(begun=True, created={"a.hprof"})


def test_a_log_that_is_closed_for_each_of_its_lines_does_not_grow_what_waits(
    watch: Watch, tmp_path: Path
) -> None:
    for number in range(700):
        (tmp_path / f"gc.log.{number}").write_bytes(b"x")
    assert len(watch.read().others) == 500


def test_directories_that_are_made_later_are_watched_however_fast_they_are_filled(
    watch: Watch, tmp_path: Path
) -> None:
    deep = tmp_path / "ns" / "app" / "pod"
    deep.mkdir(parents=True)
    (deep / "first.hprof").write_bytes(b"x")
    assert woken(watch) == {"ns/app/pod/first.hprof"}
    (deep / "second.hprof").write_bytes(b"x")
    assert woken(watch) == {"ns/app/pod/second.hprof"}


def test_the_state_directory_is_not_watched(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / ".dumpagent").mkdir()
    watch.read()
    (tmp_path / ".dumpagent" / "x.hprof").write_bytes(b"x")
    assert watch.read() == Woken()


def test_a_directory_that_moves_makes_everything_be_looked_at(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    watch.read()
    (tmp_path / "a").rename(tmp_path / "c")
    assert watch.read().everything
    watch.cover()  # as the scan does then
    (tmp_path / "c" / "b" / "x.hprof").write_bytes(b"x")
    assert woken(watch) == {"c/b/x.hprof"}


def test_a_directory_that_is_deleted_and_made_again_is_watched_again(watch: Watch, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    watch.read()
    (tmp_path / "a").rmdir()
    (tmp_path / "a").mkdir()
    watch.read()
    (tmp_path / "a" / "x.hprof").write_bytes(b"x")
    assert woken(watch) == {"a/x.hprof"}


def test_symbolic_links_are_not_followed(
    watch: Watch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (tmp_path / "link").symlink_to(elsewhere)
    watch.read()
    (elsewhere / "x.hprof").write_bytes(b"x")
    assert watch.read() == Woken()


def test_a_root_that_is_mounted_anew_is_found_by_covering_again(tmp_path: Path, told: Told) -> None:
    root = tmp_path / "root"
    (root / "old").mkdir(parents=True)
    watch = open_watch(str(root), tell=told)
    assert watch is not None
    with watch:
        watch.cover()
        root.rename(tmp_path / "before")
        (root / "new").mkdir(parents=True)
        (root / "new" / "unseen.hprof").write_bytes(b"x")
        assert watch.cover().relpaths == {"new/unseen.hprof"}
        watch.read()
        (root / "new" / "x.hprof").write_bytes(b"x")
        assert woken(watch) == {"new/x.hprof"}


def test_a_full_queue_is_told_once_and_everything_is_looked_at(
    watch: Watch, tmp_path: Path, told: Told
) -> None:
    queue = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    for _ in range(2):
        for number in range(queue + 10):
            os.close(os.open(tmp_path / f"{number % 2}.hprof", os.O_WRONLY | os.O_CREAT))
        while not watch.read().everything:
            pass
    assert told == ["watch_overflowed"]
    watch.read()
    (tmp_path / "x.hprof").write_bytes(b"x")
    assert woken(watch) == {"x.hprof"}


class TwoWatches(INotify):  # type: ignore[misc]
    """A kernel whose limit is two watches."""

    def add_watch(self, path: str, mask: int) -> int:
        wd = int(super().add_watch(path, mask))
        if wd > 2:
            self.rm_watch(wd)
            raise OSError(errno.ENOSPC, "No space left on device")
        return wd


def test_the_limit_of_watches_is_told_once_and_what_is_watched_stays_so(tmp_path: Path, told: Told) -> None:
    (tmp_path / "a").mkdir()
    with Watch(TwoWatches(nonblocking=True), str(tmp_path), tell=told) as watch:
        watch.cover()
        for name in "bcd":
            (tmp_path / name).mkdir()
        watch.read()
        watch.cover()
        assert told == ["watch_limited"]
        watch.read()
        (tmp_path / "a" / "x.hprof").write_bytes(b"x")
        (tmp_path / "y.hprof").write_bytes(b"x")
        assert woken(watch) == {"a/x.hprof", "y.hprof"}


def test_a_tree_that_is_moved_into_a_new_directory_is_left_to_the_scan(
    watch: Watch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """It can have been made beforehand, of any size: 810,000 directories kept the main loop from its heartbeat."""
    tree = tmp_path_factory.mktemp("made-before")
    for number in range(40):
        for name in range(40):
            (tree / str(number) / str(name)).mkdir(parents=True)
            (tree / str(number) / str(name) / "x.hprof").touch()
    (tmp_path / "new").mkdir()
    tree.rename(tmp_path / "new" / "tree")
    answer = watch.read()
    assert answer.everything
    assert len(answer.relpaths) < 1000


def test_a_user_who_makes_directories_does_not_take_the_nodes_watches(
    watch: Watch, tmp_path: Path, told: Told
) -> None:
    """They are root's, as the kubelet's are, and each keeps an inode in the kernel's memory."""
    for number in range(2500):
        (tmp_path / f"t{number}").mkdir()
        os.chown(tmp_path / f"t{number}", 12345, 12345)
    (tmp_path / "shop").mkdir()
    os.chown(tmp_path / "shop", 10001, 10001)
    watch.read()
    watch.cover()
    info = Path(f"/proc/self/fdinfo/{watch.fileno()}").read_text()
    assert 1000 < info.count("inotify wd:") <= 2010
    assert told == ["watch_limited"]
    watch.read()
    (tmp_path / "shop" / "x.hprof").write_bytes(b"x")
    assert woken(watch) == {"shop/x.hprof"}


def test_watches_are_free_again_once_the_directories_are_gone(watch: Watch, tmp_path: Path) -> None:
    for turn in range(3):
        for number in range(1500):
            (tmp_path / f"t{turn}-{number}").mkdir()
        watch.cover()
        for number in range(1500):
            (tmp_path / f"t{turn}-{number}").rmdir()
        watch.read()
        watch.cover()
    (tmp_path / "shop").mkdir()
    watch.read()
    (tmp_path / "shop" / "x.hprof").write_bytes(b"x")
    assert woken(watch) == {"shop/x.hprof"}


def test_a_flood_of_dumps_in_one_directory_does_not_hide_the_dump_in_another(
    watch: Watch, tmp_path: Path
) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "shop").mkdir()
    watch.read()
    for number in range(3000):
        (tmp_path / "t" / f"{number}.hprof").write_bytes(b"x")
    (tmp_path / "shop" / "x.hprof").write_bytes(b"x")
    answer = watch.read()
    assert answer.everything
    assert len(answer.relpaths) < 250
    assert "shop/x.hprof" in answer.relpaths
