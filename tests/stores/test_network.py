"""The road to the store as clusters build it, taken by the process itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.forward_proxy import ForwardProxy
from tests.harness.stores.fake import fake_store
from tests.stores.test_quirks import SMALL, Node, digest, whole

pytestmark = pytest.mark.slow  # each runs the real process


@pytest.mark.parametrize(
    "no_proxy", ["127.0.0.0/8", "10.0.0.0/8, 127.0.0.1/32", "127.0.0.1:PORT", "*.svc,127.0.0.1"]
)
def test_a_store_in_no_proxy_is_asked_directly_however_that_is_written(tmp_path: Path, no_proxy: str) -> None:
    """OpenShift's cluster-wide proxy writes CIDRs, which Python's libraries do not know."""
    with fake_store() as store, ForwardProxy() as proxy:
        node = Node(tmp_path, store)
        node.dump(SMALL)
        port = store.endpoint_url.rpartition(":")[2]
        node.upload(HTTP_PROXY=proxy.url, NO_PROXY=no_proxy.replace("PORT", port), no_proxy="")
        assert whole(store) == [digest(SMALL)]
        assert proxy.passed == []


def test_another_port_in_no_proxy_means_another_server(tmp_path: Path) -> None:
    with fake_store() as store, ForwardProxy() as proxy:
        node = Node(tmp_path, store)
        node.dump(SMALL)
        node.upload(HTTP_PROXY=proxy.url, NO_PROXY="127.0.0.1:9,10.0.0.0/8", no_proxy="")
        assert whole(store) == [digest(SMALL)]
        assert proxy.passed


def test_a_store_at_an_ipv6_address(tmp_path: Path) -> None:
    with fake_store(host="::1") as store:
        node = Node(tmp_path, store)
        node.dump(SMALL)
        node.upload(NO_PROXY="::1/128", HTTP_PROXY="http://127.0.0.1:9")
        assert whole(store) == [digest(SMALL)]
