"""The words of `ls`, `get` and `verify`: hostile names cannot steer a terminal, and every slip gets a way out."""

from __future__ import annotations

import time

import pytest
from click.testing import CliRunner, Result

from dumpagent.cli import cli
from dumpagent.cli.stored import Since, shown, table
from dumpagent.fetch.stored import StoredDump
from dumpagent.store.protocol import StoredObject


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words), env={"S3_BUCKET": "dumps"})


def stored(path: str, **labels: str) -> StoredDump:
    return StoredDump(StoredObject(path, 1 << 30, "etag", 1_767_268_800.0, labels), path)


@pytest.mark.parametrize("text", ["a\x1b[2Jb", "a\nb", "a\u202eb", "a\udcffb", "a\x9bb"])
def test_a_name_cannot_steer_the_terminal(text: str) -> None:
    assert shown(text).isprintable()
    assert "\\" in shown(text)
    assert shown("häuser/日本.hprof") == "häuser/日本.hprof"


def test_a_narrow_terminal_leaves_columns_out_and_never_cuts_the_path() -> None:
    path = "shop/checkout/java_pid1.hprof"
    dump = stored(path, node="ip-10-0-132-77.eu-central-1.compute.internal", verdict="complete")
    for width in (200, 120, 100, 80, 60):
        lines = table([dump], width=width, colours=False)
        assert any(line.endswith(path) for line in lines)
        assert max(map(len, lines)) <= width
        assert "complete" in lines[1]
    assert any(path in line for line in table([dump], width=20, colours=False))
    assert "compute.internal" in table([dump], width=None, colours=False)[1]


def test_the_workload_is_shown_for_every_layout_of_the_volume() -> None:
    for path in (
        "shop_cart-7d4f9c8b6-x2k9q/java_pid1.hprof",
        "shop_cart-7d4f9c8b6-x2k9q.hprof",
        "shop/cart/x.hprof",
    ):
        assert "shop/cart" in table([stored(path)], width=None, colours=False)[1].removesuffix(path)


@pytest.mark.parametrize("since", ["yesterday", "7x", "2026-02-30", ""])
def test_a_time_that_is_none_is_refused_with_examples(since: str) -> None:
    result = run("ls", "--since", since)
    assert result.exit_code == 2
    assert "2026-01-31" in result.output


@pytest.mark.parametrize("command", ["get", "verify"])
def test_without_a_name_nothing_is_fetched(command: str) -> None:
    result = run(command)
    assert result.exit_code == 2
    assert "--latest" in result.output


def test_another_bucket_than_the_configured_one_is_pointed_out() -> None:
    result = run("get", "s3://other/shop/x.hprof")
    assert result.exit_code == 1
    assert "--s3-bucket other" in result.output


def test_dates_and_durations_are_both_times() -> None:
    read = Since().convert
    assert read("2026-01-01T12:00", None, None) == 1_767_268_800
    assert read("2026-01-01T13:00+01:00", None, None) == 1_767_268_800
    assert abs(time.time() - 7200 - read("2h", None, None)) < 60


def test_the_cluster_is_shown_where_a_bucket_has_dumps_of_several() -> None:
    east, west = (
        stored(
            f"shop/cart/{name}.hprof", node="worker-1", cluster=name, **{"dump-time": "2026-01-01T12:00:00Z"}
        )
        for name in ("east", "west")
    )
    assert "east/worker-1" in table([east, west], width=None, colours=False)[1]
    assert "east/" not in table([east], width=None, colours=False)[1]
