"""The mount table: lost, wrong, stacked and read-only are told apart, and a torn table is none of them."""

from __future__ import annotations

import pytest

from dumpagent.mount.table import Shows, Table, TornTable, escape, unescape

ROOT = "21 1 8:1 / / rw,relatime - ext4 /dev/sda rw"
HOST = "30 21 8:1 /mnt /host/mnt rw,relatime shared:5 - ext4 /dev/sda rw"
PVC = "40 21 0:77 /pv /pv-storage rw,relatime - nfs4 server:/x rw,vers=4"
BOUND = "50 30 0:77 /pv /host/mnt/dump rw,relatime shared:9 - nfs4 server:/x rw,vers=4"


def look(*lines: str, target: str = "/host/mnt/dump", source: str = "/pv-storage") -> Shows:
    return Table(target, source).look("\n".join(lines).encode() + b"\n").shows


def test_the_source_bound_once_is_right() -> None:
    assert look(ROOT, HOST, PVC, BOUND) is Shows.THE_SOURCE


def test_no_mount_at_the_target_is_lost() -> None:
    assert look(ROOT, HOST, PVC) is Shows.NOTHING


def test_neighbours_with_longer_or_shorter_names_are_not_the_target() -> None:
    assert (
        look(ROOT, HOST, PVC, BOUND.replace("/dump ", "/dump2 "), BOUND.replace("/dump ", "/dum "))
        is Shows.NOTHING
    )


@pytest.mark.parametrize(
    "other",
    [
        BOUND.replace("0:77", "0:78"),
        BOUND.replace("0:77 /pv ", "0:77 / "),
        BOUND.replace("0:77 /pv ", "0:77 /pv//deleted "),
    ],
    ids=["another file system", "another directory of it", "a directory that was deleted"],
)  # fmt: skip
def test_any_other_mount_is_wrong(other: str) -> None:
    assert look(ROOT, HOST, PVC, other) is Shows.ANOTHER


def test_two_layers_of_the_source_are_a_stack() -> None:
    assert look(ROOT, HOST, PVC, BOUND, BOUND.replace("50 30", "51 50")) is Shows.STACKED


def test_the_top_is_the_mount_that_is_nobodys_parent_whatever_the_order() -> None:
    over = "51 50 0:99 / /host/mnt/dump rw - tmpfs tmpfs rw"
    assert look(ROOT, HOST, PVC, BOUND, over) is Shows.ANOTHER
    assert look(ROOT, HOST, PVC, over, BOUND) is Shows.ANOTHER


def test_a_mount_hidden_with_its_parent_does_not_count() -> None:
    """Somebody mounted another file system over /host/mnt itself."""
    assert look(ROOT, HOST, PVC, BOUND, "60 30 0:99 / /host/mnt rw - tmpfs tmpfs rw") is Shows.NOTHING


def test_a_replaced_volume_makes_the_old_mount_wrong() -> None:
    assert look(ROOT, HOST, PVC, BOUND, "61 40 0:80 / /pv-storage rw - nfs4 server:/y rw") is Shows.ANOTHER


@pytest.mark.parametrize(
    "line", [BOUND.replace(" rw,relatime ", " ro,relatime "), BOUND.replace(" rw,vers", " ro,vers")]
)
def test_a_read_only_mount_or_file_system_is_seen(line: str) -> None:
    assert look(ROOT, HOST, PVC, line) is Shows.READ_ONLY


def test_an_option_that_only_begins_with_ro_is_not_read_only() -> None:
    assert (
        look(ROOT, HOST, PVC, BOUND.replace(" rw,vers", " rw,rootcontext=x,errors=remount-ro,vers"))
        is Shows.THE_SOURCE
    )


def test_a_source_that_is_a_plain_directory_is_found_in_its_file_system() -> None:
    assert look(ROOT, HOST, "50 30 8:1 /pv-storage /host/mnt/dump rw - ext4 /dev/sda rw") is Shows.THE_SOURCE
    assert look(ROOT, HOST, "50 30 8:1 /other /host/mnt/dump rw - ext4 /dev/sda rw") is Shows.ANOTHER


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\nb", "a\\b", "a\\040b", "ä", "\udcff", "a.b+c*"])
def test_every_name_survives_the_table(name: str) -> None:
    assert unescape(escape(name)) == name
    field = escape(f"/host/mnt/{name}").decode("utf-8", "surrogateescape")
    bound = BOUND.replace("/host/mnt/dump", field)
    table = Table(f"/host/mnt/{name}", "/pv-storage")
    content = f"{ROOT}\n{HOST}\n{PVC}\n{bound}".encode("utf-8", "surrogateescape")
    assert table.look(content).shows is Shows.THE_SOURCE


def test_a_table_without_any_mount_for_the_source_is_unknown_not_lost() -> None:
    with pytest.raises(TornTable):
        look("")


def test_optional_fields_in_any_number_are_read() -> None:
    assert (
        look(ROOT, HOST, PVC, BOUND.replace("shared:9", "shared:9 master:3 propagate_from:2"))
        is Shows.THE_SOURCE
    )
    assert look(ROOT, HOST, PVC, BOUND.replace(" shared:9", "")) is Shows.THE_SOURCE
