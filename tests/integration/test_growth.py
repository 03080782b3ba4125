"""What grew between two dumps of a real JVM: the field that holds more is first, and nothing is counted twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dumpagent.analyze.analysis import Subject
from dumpagent.analyze.growth.measure import measure
from dumpagent.analyze.memory import Budget
from dumpagent.hprof.source import InMemory
from tests.harness.jvm import Jdk, LeakyJvm, pinned_jdk
from tests.harness.leaks import COLLECTORS, dump_leak
from tests.harness.stores.server import StoreServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MIB = 1 << 20


def diff(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "dumpagent", "diff", *map(str, words)]
    env = {**os.environ, **variables}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=300, check=False)


def grown(*words: object, **variables: str) -> dict[str, Any]:
    said = diff(*words, "--json", **variables)
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


def dump(jdk: Jdk, app: LeakyJvm, path: Path) -> None:
    argv = [str(jdk.tool("jcmd")), str(app.pid), "GC.heap_dump", str(path)]
    subprocess.run(argv, check=True, capture_output=True, timeout=120)


@pytest.mark.parametrize(
    ("version", "options"),
    [
        ("11.0.13.1", ["-XX:-UseSerialGC", "-XX:+UseParallelGC"]),
        ("17.0.9.2", ["-XX:+UseSerialGC", "-XX:-UseCompressedOops"]),
        ("21.0.8.2", ["-XX:-UseSerialGC", "-XX:+UseZGC"]),
        ("25.0.2.1", ["-XX:-UseSerialGC", "-XX:+UseG1GC", "-XX:+UseCompactObjectHeaders"]),
    ],
)
def test_what_a_running_jvm_leaks_is_named_by_its_holder(
    version: str, options: list[str], tmp_path: Path
) -> None:
    jdk = pinned_jdk(version)
    with jdk.start_leaky(tmp_path, xmx_mib=200, options=options) as app:
        app.ask("fill 3")
        for name in ("a", "b", "c"):
            if name == "c":
                app.ask("fill 12")
            dump(jdk, app, tmp_path / f"{name}.hprof")
    still = grown(tmp_path / "a.hprof", tmp_path / "b.hprof")
    assert sum(row["grown_bytes"] for row in still["owners"]) < 100_000
    assert not [row for row in still["owners"] if row["holder"].startswith("LeakyApp")]
    found = grown(tmp_path / "b.hprof", tmp_path / "c.hprof")
    assert found["comparable"]
    first = found["owners"][0]
    assert first["holder"].startswith("LeakyApp"), found["owners"][:5]
    leaked = sum(row["grown_bytes"] for row in found["owners"] if row["holder"].startswith("LeakyApp"))
    assert leaked > 9 * MIB
    orders = {row["name"]: row for row in found["classes"]}["LeakyApp$Order"]
    assert orders["grown_instances"] == orders["new_instances"] - orders["old_instances"] > 0


@pytest.mark.parametrize("leak", ["sessions", "list", "threadlocal", "local", "shared"])
def test_every_reachable_byte_counts_for_one_owner(leak: str, any_jdk: Jdk, tmp_path: Path) -> None:
    dump_leak(any_jdk, leak, tmp_path / "a.hprof", mib=3, options=COLLECTORS["G1"])
    content = (tmp_path / "a.hprof").read_bytes()
    found = measure(
        InMemory(content), Subject("x", len(content)), Budget(1 << 40, lambda _text: None),
        step=lambda _title: lambda _bytes: None,
    )  # fmt: skip
    for amounts in (found.owners, found.classes):
        assert sum(amount.objects for amount in amounts.values()) == found.heap.reachable_objects
        assert sum(amount.size_bytes for amount in amounts.values()) == found.heap.reachable_bytes
    payloads = found.owners["PlantedLeaks$Payload", "content", "field"]
    assert payloads.objects == found.classes["PlantedLeaks$Payload"].objects
    assert payloads.size_bytes > 2 * MIB


def test_the_same_leak_on_wider_references_or_another_jvm_is_no_growth(tmp_path: Path) -> None:
    for name, version, options in (
        ("a", "17.0.9.2", ["-XX:+UseSerialGC"]),
        ("b", "17.0.9.2", ["-XX:+UseSerialGC", "-XX:-UseCompressedOops"]),
        ("c", "25.0.2.1", ["-XX:+UseG1GC", "-XX:+UseCompactObjectHeaders"]),
    ):
        dump_leak(pinned_jdk(version), "sessions", tmp_path / f"{name}.hprof", mib=5, options=options)
    for old, new in (("a", "b"), ("b", "a"), ("a", "c"), ("c", "b")):
        found = grown(tmp_path / f"{old}.hprof", tmp_path / f"{new}.hprof")
        assert not found["comparable"]
        assert found["notes"]
        assert not [row for row in found["owners"] if row["holder"].startswith("PlantedLeaks")], (old, new)
        assert not [row for row in found["classes"] if row["name"].startswith("PlantedLeaks")], (old, new)


def test_the_dump_before_of_the_same_workload_is_found_in_the_store(
    moto: StoreServer, any_jdk: Jdk, tmp_path: Path
) -> None:
    bucket, root = moto.new_bucket(), tmp_path / "dump"
    keys = [f"shop/cart/{name}.hprof" for name in ("first", "second")]
    other = "shop/pay/other.hprof"
    for key, mib in ((keys[0], 2), (other, 4), (keys[1], 6)):
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        dump_leak(any_jdk, "sessions", root / key, mib=mib, options=COLLECTORS["Serial"])
        subprocess.run(["sleep", "1.1"], check=True)  # the time of a dump is told in seconds
    store = {**moto.environment(bucket), "FILE_STABLE_TIME": "0", "NODE_NAME": "worker-1"}
    argv = [sys.executable, "-m", "dumpagent", "upload", "--once"]
    env = {**os.environ, **store, "DUMP_ROOT": str(root)}
    subprocess.run(argv, env=env, check=True, capture_output=True, timeout=120)
    found = grown("--previous", keys[1], **store)
    assert found["old"]["name"] == keys[0]
    assert found["new"]["name"] == keys[1]
    assert found["owners"][0]["label"] == "content"
    first = diff("--previous", keys[0], **store)
    assert first.returncode == 2
    assert "no dump of shop/cart that is older" in first.stderr
