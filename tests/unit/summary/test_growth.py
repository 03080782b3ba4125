"""What grew since the dump before: like with like, and nothing where the two cannot be compared."""

from __future__ import annotations

from typing import Any

import pytest

from dumpagent.summary.growth import growth, growth_line

MIB = 1 << 20


def report(classes: dict[str, int], **more: Any) -> dict[str, Any]:
    return {
        "surveyed_percent": 100, "damage": None, "layout": "compressed references", "objects": 1000,
        "shallow_bytes": sum(classes.values()), "owner": {"name": "Store.sessions"},
        "classes": [{"name": name, "instances": 1, "shallow_bytes": size} for name, size in classes.items()],
        "dump": {"jvm": "17.0.9", "key": "a/x.hprof", "dump_time": "2026-11-27T10:00:00Z"},
        **more,
    }  # fmt: skip


def test_classes_that_grew_are_named_most_first_and_a_new_one_with_a_bound() -> None:
    old = report({"byte[]": 100 * MIB, "Node": 20 * MIB, "Old": 10 * MIB})
    new = report({"byte[]": 220 * MIB, "Session": 60 * MIB, "Node": 19 * MIB})
    found = growth(old, new)
    assert found is not None
    assert found["grown_bytes"] == 169 * MIB
    assert [(each["name"], each["grown_bytes"] // MIB, each["at_least"]) for each in found["classes"]] == [
        ("byte[]", 120, False),
        ("Session", 50, True),
    ]
    assert growth_line(found) == (
        "since the dump of 2026-11-27T10:00:00Z: heap +169.0 MiB, byte[] +120.0 MiB, Session at least +50.0 MiB;"
        " the same holder as then"
    )


def test_a_heap_that_shrank_is_said_to_have_shrunk() -> None:
    found = growth(report({"byte[]": 100 * MIB}), report({"byte[]": 40 * MIB}, owner=None))
    assert found is not None
    assert growth_line(found) == "since the dump of 2026-11-27T10:00:00Z: heap -60.0 MiB"


@pytest.mark.parametrize(
    "other",
    [
        {"layout": "full references"},
        {"surveyed_percent": 40},
        {"damage": "it ends inside a record"},
        {"dump": {"jvm": "21.0.1", "key": "a", "dump_time": None}},
        {"classes": None},
    ],
)
def test_what_is_not_alike_is_not_compared(other: dict[str, Any]) -> None:
    assert growth({**report({"byte[]": 1}), **other}, report({"byte[]": 9})) is None
    assert growth({}, report({"byte[]": 9})) is None
