"""The uid of the pod that was named, and no other pod's; a fake answers for the API server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dumpagent.errors import Refused
from dumpagent.trigger.pod import uid_of


def _uid(metadata: Mapping[str, Any], node: str = "worker-1") -> str:
    def ask(method: str, path: str, body: Mapping[str, Any] | None) -> Mapping[str, Any]:
        assert (method, path) == ("GET", "/api/v1/namespaces/shop/pods/orders-1")
        return {"metadata": metadata, "spec": {"nodeName": "worker-1"}}

    return uid_of(ask, "shop", "orders-1", node)


def test_a_pod_has_its_own_uid_and_a_static_one_its_hash() -> None:
    """What its cgroup is named after."""
    assert _uid({"uid": "0a0b-1c"}) == "0a0b-1c"
    assert _uid({"uid": "0a0b-1c", "annotations": {"kubernetes.io/config.hash": "ffee0011"}}) == "ffee0011"


def test_a_pod_of_another_node_is_refused() -> None:
    """With the name of the node to go to."""
    with pytest.raises(Refused, match="runs on worker-1, not on worker-2"):
        _uid({"uid": "0a0b-1c"}, node="worker-2")


@pytest.mark.parametrize("uid", ["", "../..", None])
def test_an_answer_without_a_uid_is_refused(uid: str | None) -> None:
    """It would match every process, or name a file outside."""
    with pytest.raises(Refused, match="no usable uid"):
        _uid({"uid": uid})
