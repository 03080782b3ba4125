"""A second kubelet joins the cluster of our own, so that what concerns two nodes can be tried on two."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import Cluster, LocalCluster
from tests.e2e.kubelet import process

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def two_nodes(cluster: Cluster) -> Iterator[tuple[Cluster, list[str]]]:
    """Give the cluster and the names of two nodes that are ready; one of another's cluster must have them."""
    if isinstance(cluster, LocalCluster):
        cluster.join()
    ready = json.loads(cluster.kubectl("get", "nodes", "-o", "json"))["items"]
    names = [node["metadata"]["name"] for node in ready]
    assert len(names) >= 2, "a cluster of two nodes is needed"
    yield cluster, names[:2]
    if isinstance(cluster, LocalCluster):
        cluster.leave()


def _start(cluster: Cluster, name: str, node: str, command: str) -> None:
    container = {
        "name": "c",
        "image": cluster.node_image,
        "command": ["sh", "-c", command],
        "volumeMounts": [{"name": "mnt", "mountPath": "/mnt", "mountPropagation": "HostToContainer"}],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "e2e", "labels": {"app": name}},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 0,
            "containers": [container],
            "volumes": [{"name": "mnt", "hostPath": {"path": "/mnt"}}],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "e2e"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    for thing in (pod, service):
        cluster.kubectl("apply", "-f", "-", stdin=json.dumps(thing))
    cluster.kubectl("wait", "-n", "e2e", "--for=condition=Ready", "--timeout=90s", f"pod/{name}")


def test_a_second_node_has_pods_mounts_and_a_way_to_the_first(two_nodes: tuple[Cluster, list[str]]) -> None:
    """Its pods reach services of the other node; what is mounted on the other is not seen there."""
    cluster, (first, second) = two_nodes
    _start(cluster, "one", first, "mkdir /w; echo from-one > /w/index.html; exec httpd -f -p 8000 -h /w")
    _start(cluster, "two", second, "exec sleep 1000000")
    words = ("exec", "-n", "e2e", "two", "--")
    address = cluster.kubectl("get", "-n", "e2e", "service", "one", "-o", "jsonpath={.spec.clusterIP}")
    assert cluster.kubectl(*words, "wget", "-qO-", f"http://{address}/") == "from-one\n"
    cluster.on_node("mkdir -p /mnt/of-the-first")
    try:
        assert "of-the-first" not in cluster.kubectl(*words, "ls", "/mnt")
    finally:
        cluster.on_node("rmdir /mnt/of-the-first")
    if isinstance(cluster, LocalCluster):
        assert process("node1") != process("node2")
    cluster.kubectl("delete", "-n", "e2e", "pod,service", "one", "two", "--wait=false")
