"""A pod's Event: on the pod that wrote the dump for certain or on none, once, and nobody waits for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dumpagent.errors import BadSettings, Unreachable
from dumpagent.notify.api_server import ApiServer, address_of
from dumpagent.notify.pod_events import Pod, PodEvents, writer_named_by
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Event
from dumpagent.observe.events.dumps import DumpAlreadyStored, DumpUploaded
from dumpagent.secrets import HIDDEN, hide
from tests.harness.api_server import POD, PODS, Cluster, status
from tests.harness.events import an_event
from tests.harness.stores.certificates import make_certificates
from tests.unit.upload.conftest import Told

DUMP = {
    "path": "/mnt/dump/shop_checkout-7d4b9-x2x.20260101T120000Z.hprof", "key": "dumps/it's/shop_checkout-7d4b9-x2x.hprof",
    "size_bytes": 3 << 20, "verdict": "complete", "reason": "whole", "crc32": "0badcafe",
    "dump_time": "2026-01-01T12:00:00Z",
}  # fmt: skip


@pytest.mark.parametrize(
    ("path", "pod"),
    [
        ("shop_checkout-7d4b9-x2x.hprof", Pod("shop", "checkout-7d4b9-x2x")),
        ("shop_checkout-0.20260101T120000Z.hprof", Pod("shop", "checkout-0")),
        ("shop_checkout-0.20260101T120000Z-2.hprof.gz", Pod("shop", "checkout-0")),
        ("shop_checkout-0.hprof.3", Pod("shop", "checkout-0")),
        ("any/where/shop_node.example.com.hprof", Pod("shop", "node.example.com")),
        ("shop_checkout-0/java_pid1.hprof", Pod("shop", "checkout-0")),
        ("shop/checkout-0/java_pid1.hprof", Pod("shop", "checkout-0")),
        ("java_pid1.hprof", None),
        ("checkout/java_pid1.hprof", None),
        ("a/shop/checkout-0/heap.hprof", None),  # which of the three is the namespace?
        ("Shop_Checkout.hprof", None),
        ("shop_check_out.hprof", None),
        ("shop_-x.hprof", None),
        ("../shop_x/y.hprof.p0", None),  # part of a dump, which has an Event of its own
        ("shop_checkout-0.hprof.p0", None),
        ("shop_a/../../nodes/x.hprof", None),
        ("shop%2f..%2f_x.hprof", None),
    ],
)
def test_a_path_names_a_pod_or_none(path: str, pod: Pod | None) -> None:
    assert writer_named_by(path) == pod


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    server = Cluster(tmp_path)
    yield server
    server.going_on.set()
    server.shutdown()
    server.server_close()


class World:
    """The listener before a real API server, with a clock that the test moves."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.told, self.time = cluster, AllTold(), 1_767_268_900.0
        self.api = ApiServer(cluster.address, account=str(cluster.account))
        self.events = PodEvents(
            self.ask, root="/mnt/dump", node="worker-1", agent="heap-dump-s3-uploader-0", tell=self.told,
            now=lambda: self.time, monotonic=lambda: self.time,
        )  # fmt: skip

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        return self.api.ask(method, path, body)

    def store(self, **other: object) -> None:
        self.events(an_event(DumpUploaded, **{**DUMP, **other}))
        self.events.turn()

    def after(self, seconds: float) -> None:
        self.time += seconds
        self.events.turn()


class AllTold(Told):
    """Keeps debug events too."""

    def __call__(self, event: Event, /) -> None:
        self.events.append((event.name, event.fields()))


@pytest.fixture
def world(cluster: Cluster) -> World:
    return World(cluster)


def test_the_pod_that_wrote_the_dump_gets_an_event_with_the_command_that_fetches_it(world: World) -> None:
    world.store()
    (event,) = world.cluster.events()
    assert event["involvedObject"] == {
        "apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "checkout-7d4b9-x2x", "uid": "u-1",
    }  # fmt: skip
    assert (event["type"], event["reason"], event["count"]) == ("Normal", "HeapDumpStored", 1)
    assert event["firstTimestamp"] == event["lastTimestamp"] == "2026-01-01T12:01:40Z"
    assert event["message"] == (
        "Heap dump of 3.0 MiB, 2026-01-01T12:00:00Z, is in the store: "
        "dumpagent get 'dumps/it'\"'\"'s/shop_checkout-7d4b9-x2x.hprof'"
    )
    assert world.told.names() == ["pod_event_made"]


def test_a_truncated_dump_is_a_warning_that_says_why(world: World) -> None:
    world.store(verdict="truncated", reason="no END record")
    (event,) = world.cluster.events()
    assert (event["type"], event["reason"]) == ("Warning", "HeapDumpTruncated")
    assert event["message"].startswith("TRUNCATED heap dump of")
    assert "(no END record)" in event["message"]


def test_the_server_accepts_the_event_by_kubernetes_own_schema(world: World) -> None:
    import kubernetes_validate

    world.store(key="k" * 1024, path=f"/mnt/dump/shop_{'p' * 253}.hprof")
    world.cluster.answer = lambda method, path: (200, POD) if method == "GET" else None
    world.store(key="\udcff" * 1024, path=f"/mnt/dump/shop_{'p' * 253}.hprof")
    (event,) = world.cluster.events()
    kubernetes_validate.validate(event, "1.25", strict=True)
    assert len(event["metadata"]["name"]) <= 253
    assert len(event["message"].encode()) <= 1024


@pytest.mark.parametrize(
    ("pod", "dump", "why"),
    [
        ({"spec": {"nodeName": "worker-2"}}, {}, "runs on worker-2"),
        ({"spec": {}}, {}, "runs on no node"),
        ({"metadata": {"uid": "u", "creationTimestamp": "2026-01-01T12:00:01Z"}}, {}, "after the dump"),
        ({"metadata": {"uid": "u"}}, {}, "after the dump"),
        ({"metadata": {"creationTimestamp": "2026-01-01T11:00:00Z"}}, {}, "no uid"),
        ({}, {"dump_time": None}, "does not say when"),
    ],
    ids=["another node", "no node", "a later pod of that name", "no time", "no uid", "no time in the dump"],
)
def test_where_the_writer_is_not_certain_no_event_is_made(
    world: World, pod: dict[str, Any], dump: dict[str, object], why: str
) -> None:
    world.cluster.pod = {**POD, **pod}
    world.store(**dump)
    assert world.cluster.events() == []
    ((name, fields),) = world.told.events
    assert name == "pod_event_skipped"
    assert why in str(fields["reason"])


def test_a_path_that_names_no_pod_asks_nobody(world: World) -> None:
    world.store(path="/mnt/dump/java_pid1.hprof")
    world.events(an_event(DumpAlreadyStored, **DUMP))
    world.events.turn()
    assert world.cluster.asked == []
    assert world.told.names() == ["pod_event_skipped"]


def test_a_pod_that_is_gone_is_no_incident(world: World) -> None:
    world.cluster.answer = lambda *_: status(404, "NotFound")
    world.store()
    assert world.told.names() == ["pod_event_skipped"]
    world.after(600)
    assert len(world.cluster.asked) == 1


def test_a_refusal_is_told_once_with_the_role_that_is_missing_and_its_end_too(world: World) -> None:
    # Source: kube-apiserver 1.20: its message names the pod.
    world.cluster.answer = lambda _, path: status(403, "Forbidden", f'pods "{path}" is forbidden')
    for number in range(5):
        world.store(key=f"dump-{number}", path=f"/mnt/dump/shop_checkout-{number}.hprof")
    assert world.told.names() == ["pod_event_failed"]
    assert "manifests/pod-events to the namespace shop" in str(world.told.of("pod_event_failed")[0]["hint"])
    assert len(world.cluster.asked) == 5, "not asked again for the same dump"
    world.cluster.answer = lambda *_: None
    world.store(key="dump-6")
    assert world.told.names() == ["pod_event_failed", "pod_event_made", "pod_event_recovered"]


def test_a_server_that_is_away_is_asked_again_a_few_times_and_told_once(world: World) -> None:
    world.cluster.answer = lambda *_: status(503, "ServiceUnavailable")
    world.store()
    for _ in range(600):
        world.after(1)
    assert 5 <= len(world.cluster.asked) <= 8
    assert world.told.names() == ["pod_event_failed"]
    world.cluster.answer = lambda *_: None
    world.store()
    assert world.told.names() == ["pod_event_failed", "pod_event_made", "pod_event_recovered"]


def test_a_server_that_is_not_there_is_told_once_too(world: World) -> None:
    world.api = ApiServer("127.0.0.1:1", account=str(world.cluster.account))
    world.store()
    for _ in range(300):
        world.after(1)
    (failed,) = world.told.of("pod_event_failed")
    assert "Connection refused" in str(failed["error"])
    assert "0x" not in str(failed["error"])
    assert "network policies" in str(failed["hint"])


def test_an_event_whose_answer_was_lost_is_not_made_twice(world: World) -> None:
    world.cluster.answer = lambda method, _: status(500, "InternalError") if method == "POST" else None
    world.store()
    world.cluster.answer = lambda method, _: status(409, "AlreadyExists") if method == "POST" else None
    world.after(60)
    names = {event["metadata"]["name"] for event in world.cluster.events()}
    assert len(names) == 1
    assert world.told.names() == ["pod_event_failed", "pod_event_recovered"]


def test_a_renewed_token_is_used_at_once_and_shown_nowhere(world: World) -> None:
    world.store()
    world.cluster.turn_token("second-token")
    world.store(key="another")
    assert [token for _, _, token, _ in world.cluster.asked] == ["first-token"] * 2 + ["second-token"] * 2
    assert hide("first-token second-token") == f"{HIDDEN} {HIDDEN}"


def test_a_token_that_expired_before_it_was_renewed_is_tried_again(world: World) -> None:
    world.cluster.token = "second-token"
    world.store()
    assert world.told.names() == ["pod_event_failed"]
    world.cluster.turn_token("second-token")
    world.after(5)
    assert len(world.cluster.events()) == 1


def test_without_a_token_the_folder_that_mounts_one_is_named(world: World) -> None:
    (world.cluster.account / "token").unlink()
    world.store()
    assert "manifests/pod-events" in str(world.told.of("pod_event_failed")[0]["hint"])
    assert world.cluster.asked == []


def test_another_ca_is_refused(world: World, tmp_path: Path) -> None:
    """Whoever answers at the API server's address must not get the token."""
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    (world.cluster.account / "ca.crt").write_bytes(other.ca.read_bytes())
    with pytest.raises(Unreachable, match="CERTIFICATE_VERIFY_FAILED"):
        world.api.ask("GET", PODS)
    assert world.cluster.asked == []


def test_a_server_that_hangs_holds_up_nobody_who_tells(world: World) -> None:
    def hang(_method: str, _path: str) -> None:
        world.cluster.going_on.wait(60)

    world.cluster.answer = hang
    stopped = threading.Event()
    thread = world.events.start(stopped.is_set, barrier=Barrier(world.told))
    for number in range(1000):
        world.events(an_event(DumpUploaded, **{**DUMP, "key": f"dump-{number}"}))
    while not world.cluster.asked:
        stopped.wait(0.01)
    assert thread.is_alive()
    stopped.set()
    world.cluster.going_on.set()


def test_outside_a_cluster_the_start_is_refused() -> None:
    with pytest.raises(BadSettings, match="KUBERNETES_SERVICE_HOST"):
        address_of({})
    assert address_of({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == "10.0.0.1:443"
    assert (
        address_of({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"})
        == "[fd00::1]:6443"
    )
