"""Which dump a file belongs to, and where both stand in the store: one listing shows what belongs together."""

from __future__ import annotations

import pytest

from dumpagent.dumps.companion import (
    Anchor,
    companion_folder,
    is_companion_path,
    is_crash_file,
    nearest,
)
from dumpagent.dumps.globs import COMPANIONS, Globs
from dumpagent.dumps.model import DumpFile, Identity

NOON_MS = 1_767_268_800_000  # 2026-01-01T12:00:00Z
NOON_S = NOON_MS / 1000


def a_file(relpath: str, at_s: float = NOON_S) -> DumpFile:
    return DumpFile("/mnt/dump", relpath, Identity(1, 10, int(at_s * 1e9)))


@pytest.mark.parametrize(
    ("dump", "folder"),
    [
        ("shop/java_pid1.hprof", "shop/java_pid1.20260101T120000Z.companions/"),
        ("java_pid1.hprof.gz", "java_pid1.20260101T120000Z.companions/"),
        ("shop/heap", "shop/heap.20260101T120000Z.companions/"),
        # Keys of a second dump of that name: with the time, with the node too.
        ("shop/java_pid1.20260101T120000Z.hprof", "shop/java_pid1.20260101T120000Z.companions/"),
        ("shop/java_pid1.20260101T120000Z.node-1.hprof.gz", "shop/java_pid1.20260101T120000Z.companions/"),
    ],
)
def test_companions_stand_beside_their_dump(dump: str, folder: str) -> None:
    assert companion_folder(dump, NOON_MS) == folder
    assert is_companion_path(folder + "gc.log")
    assert not is_companion_path(dump)


@pytest.mark.parametrize("path", ["shop/x.companions/gc.log", "shop/java_pid1.20260101T120000Z.companions"])
def test_other_paths_are_no_companions(path: str) -> None:
    assert not is_companion_path(path)


@pytest.mark.parametrize(
    "name",
    [
        "hs_err_pid1.log", "replay_pid1.log", "javacore.20260101.120000.1.0001.txt", "Snap.20260101.1.trc",
        "threaddump-1.txt", "gc.log", "gc.log.0", "gc-1.log", "shop-gc.log", "recording.jfr",
    ],
)  # fmt: skip
def test_what_a_dying_jvm_leaves_travels_by_default(name: str) -> None:
    assert Globs(COMPANIONS).match(name)
    assert is_crash_file(name) == name.startswith(("hs_err", "replay", "javacore", "Snap", "threaddump"))


@pytest.mark.parametrize("name", ["app.log", "notes.txt", "java_pid1.hprof", "logback.xml"])
def test_other_files_do_not(name: str) -> None:
    assert not Globs(COMPANIONS).match(name)


def test_a_file_belongs_to_the_dump_that_was_written_nearest_to_it() -> None:
    old = Anchor("shop/java_pid1.hprof", NOON_MS, NOON_S + 5)
    new = Anchor("shop/java_pid1.hprof", NOON_MS + 600_000, NOON_S + 605)
    assert nearest(a_file("shop/gc.log", NOON_S + 10), [old, new]) is old
    assert nearest(a_file("shop/gc.log", NOON_S + 590), [old, new]) is new
    assert nearest(a_file("shop/gc.log", NOON_S + 9000), [old, new]) is None


def test_in_a_directory_of_several_jvms_the_process_id_and_the_name_count_before_time() -> None:
    one = Anchor("java_pid17.hprof", NOON_MS, NOON_S)
    two = Anchor("java_pid23.hprof", NOON_MS, NOON_S + 60)
    assert nearest(a_file("hs_err_pid17.log", NOON_S + 60), [one, two]) is one
    one, two = Anchor("shop_cart.hprof", NOON_MS, NOON_S), Anchor("shop_pay.hprof", NOON_MS, NOON_S + 60)
    assert nearest(a_file("shop_cart.gc.log", NOON_S + 60), [one, two]) is one
