"""Metadata go through HTTP headers of every store unharmed, whatever the file is called."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from dumpagent.dumps import metadata
from dumpagent.dumps.model import Cause, DumpFacts, DumpFile, Identity, State, Verdict
from dumpagent.settings import Place

DUMP = DumpFile("/mnt/dump", "shop/java_pid1.hprof", Identity(7, 1000, 1_767_225_600_000_000_000), uid=10001)
CONTENTS = metadata.Contents(1000, 0xDEADBEEF)


def described(
    *,
    original: str = "shop_checkout-0/java_pid1.hprof",
    state: State = State.COMPLETE,
    facts: DumpFacts | None = None,
    node: str = "worker-1",
    cluster_name: str = "",
) -> dict[str, str]:
    return metadata.describe(
        DUMP,
        Verdict(state, "", due=True, facts=facts),
        CONTENTS,
        original=original,
        place=Place(node_name=node, pod_name="agent-0", pod_namespace="dumps", cluster_name=cluster_name),
        now=1_767_225_660.0,
    )


def test_everything_that_identifies_a_dump_is_there() -> None:
    facts = DumpFacts(
        dump_time_ms=1_767_225_599_123, jvm='openjdk version "17.0.15" 2025-04-15', cause=Cause.OOM
    )
    found = described(facts=facts)
    assert found.pop("agent-version")
    assert found == {
        "node": "worker-1",
        "upload-time": "2026-01-01T00:01:00Z",
        "dump-time": "2025-12-31T23:59:59Z",
        "verdict": "complete",
        "original-path": "shop_checkout-0/java_pid1.hprof",
        "original-size": "1000",
        "crc32": "deadbeef",
        "jvm": 'openjdk version "17.0.15" 2025-04-15',
        "cause": "oom",
        "namespace": "shop",
        "pod": "checkout-0",
        "workload": "checkout",
        "uid": "10001",
        "agent-pod": "agent-0",
        "agent-namespace": "dumps",
    }


def test_an_application_that_the_path_does_not_name_is_left_out() -> None:
    """The agent's own pod and namespace must not be taken for the application's."""
    found = described(original="java_pid1.hprof")
    assert not {"namespace", "pod", "workload"} & found.keys()
    assert (found["agent-pod"], found["agent-namespace"]) == ("agent-0", "dumps")


def test_the_cluster_goes_with_the_dump_where_it_has_a_name() -> None:
    assert described(cluster_name="prod-eu")["cluster"] == "prod-eu"
    assert "cluster" not in described()


def test_what_is_neither_complete_nor_truncated_is_called_unknown() -> None:
    assert described(state=State.NOT_A_DUMP)["verdict"] == "unknown"
    assert described(state=State.TRUNCATED)["verdict"] == "truncated"


@given(st.binary(max_size=3000), st.text(max_size=3000))
def test_any_name_gives_printable_ascii_within_2_kib(path: bytes, jvm: str) -> None:
    original = os.fsdecode(path.replace(b"\0", b""))
    found = described(
        original=original,
        facts=DumpFacts(jvm=jvm.replace("\0", "").encode("utf-8", "ignore").decode()),
        node="n" * 400,
    )
    assert sum(len(name) + len(value) for name, value in found.items()) <= 2048
    for value in found.values():
        assert value.isascii()
        assert value.isprintable()
        assert value == value.strip()


def test_a_dump_is_known_again_by_its_bytes_alone() -> None:
    assert metadata.holds(described(), CONTENTS)
    assert metadata.holds(described(original="moved/elsewhere.hprof", node="another"), CONTENTS)
    assert not metadata.holds(described(), metadata.Contents(1000, 0xDEADBEEE))
    assert not metadata.holds(described(), metadata.Contents(1001, 0xDEADBEEF))
    assert not metadata.holds({"node": "n", "upload-time": "t"}, CONTENTS)  # what the first version wrote
    assert not metadata.holds(None, CONTENTS)


def test_an_object_of_another_user_with_the_same_length_and_crc32_is_another_dump() -> None:
    """Four bytes give any content the CRC32 of another."""
    told = {"original-size": "1000", "crc32": "deadbeef", "uid": "12345"}
    assert metadata.holds(told, metadata.Contents(1000, 0xDEADBEEF, 12345))
    assert not metadata.holds(told, metadata.Contents(1000, 0xDEADBEEF, 10001))
    del told["uid"]  # of version 0.1.0
    assert metadata.holds(told, metadata.Contents(1000, 0xDEADBEEF, 10001))
