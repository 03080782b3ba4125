"""The message about a dump names whose code it was, and leads to the dump from any machine."""

from __future__ import annotations

import shlex

import pytest

from dumpagent.notify.commands import StoreAddress, fetch_command
from dumpagent.notify.message import Sender, dump_message, own_frames
from dumpagent.observe.events.dumps import DumpUploaded
from tests.harness.events import an_event

SENDER = Sender("worker-1", "", "/mnt/dump", StoreAddress("dumps", "prod", "https://s3.example.com"))


def told(path: str, **more: object) -> tuple[str, dict[str, object]]:
    dump = an_event(DumpUploaded, path=f"/mnt/dump/{path}", key=f"prod/{path}", verdict="complete", **more)
    return dump_message(dump, SENDER)


def test_the_frames_of_the_application_are_shown_and_those_of_the_jdk_left_out() -> None:
    stack = [
        "java.util.Arrays.copyOf(Arrays.java:3481)",
        "java.util.ArrayList.grow(ArrayList.java:237)",
        "com.acme.Shop.fill(Shop.java:42)",
        "com.acme.Shop.run(Shop.java:7)",
        "java.lang.Thread.run(Thread.java:840)",
    ]
    assert own_frames(stack) == [stack[0], "...", stack[2], stack[3], "..."]
    assert own_frames(stack[:2]) == [stack[0], "..."]
    assert own_frames([f"com.acme.F.f{n}(F.java:1)" for n in range(9)])[-1] == "..."
    assert own_frames([]) == []


def test_workload_and_pod_are_named_as_kubernetes_names_them() -> None:
    text, facts = told("shop_cart-7d4f9c8b6-x2k9q/java_pid1.hprof")
    assert "Heap dump of shop/cart on worker-1" in text
    assert "pod shop/cart-7d4f9c8b6-x2k9q" in text
    assert (facts["namespace"], facts["workload"], facts["cluster"]) == ("shop", "cart", None)


@pytest.mark.parametrize(
    ("endpoint", "named"),
    [
        ("", False),
        ("https://s3.example.com", True),
        ("http://10.0.0.9:9000", True),
        ("https://[2001:db8::7]:9000", True),
        ("http://minio:9000", False),
        ("https://s3.openshift-storage.svc:443", False),
        ("http://minio.store.svc.cluster.local:9000", False),
    ],
)
def test_an_endpoint_that_only_the_cluster_knows_is_no_part_of_a_command(endpoint: str, named: bool) -> None:
    words = shlex.split(fetch_command("a b/$(x).hprof", StoreAddress("dumps", "", endpoint)))
    assert words[:4] == ["dumpagent", "get", "--s3-bucket", "dumps"]
    assert words[-1] == "a b/$(x).hprof"
    assert (endpoint in words) is named or not endpoint
