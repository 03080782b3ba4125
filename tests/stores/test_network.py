"""The road to the store as clusters build it, taken by the process itself."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness.forward_proxy import ForwardProxy
from tests.harness.stores.certificates import Certificates, make_certificates
from tests.harness.stores.fake import BUCKET, Ways, fake_store
from tests.stores.test_quirks import SMALL, SMALL_BYTES, Node, a_dump, digest, whole

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


@contextmanager
def running(node: Node, *before: str, **more: str) -> Iterator[Path]:
    """Run the uploader as a daemon while the block runs, under the command `before`; give the file of its log."""
    log = node.root / "log"
    more = {
        "WATCH_INTERVAL": "1s",
        "STORE_CHECK_INTERVAL": "5s",
        "SUMMARY": "off",
        "FILE_STABLE_TIME": "1s",
        **more,
    }
    with log.open("wb") as file:
        daemon = subprocess.Popen(
            [*before, sys.executable, "-m", "dumpagent", "upload"],
            env={**node.environment, **more}, stderr=file, stdout=file,
        )  # fmt: skip
    try:
        yield log
    finally:
        daemon.terminate()
        daemon.wait(30)


def until(log: Path, event: str, within_s: float = 90) -> dict[str, object]:
    """Give the first line of the log with that event."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        for line in log.read_text().splitlines():
            if line.startswith("{") and json.loads(line)["event"] == event:
                return dict(json.loads(line))
        time.sleep(0.1)
    raise AssertionError(f"no {event} in {log.read_text()}")


def test_a_name_that_has_no_address_for_a_while_is_told_as_dns_and_the_dump_follows(tmp_path: Path) -> None:
    """CoreDNS that restarts. The name stands in a hosts file of the process's own, and nothing else is asked."""
    hosts, order = tmp_path / "hosts", tmp_path / "nsswitch.conf"
    hosts.write_text("127.0.0.1 localhost\n")
    order.write_text("hosts: files\n")
    own = f'mount --bind {hosts} /etc/hosts && mount --bind {order} /etc/nsswitch.conf && exec "$@"'
    with fake_store() as store:
        node = Node(tmp_path, store)
        node.dump(SMALL)
        endpoint = f"http://store.heap-dumps.example:{store.endpoint_url.rpartition(':')[2]}"
        with running(node, "unshare", "-m", "sh", "-c", own, "sh", S3_ENDPOINT_URL=endpoint) as log:
            failed = until(log, "store_failed")
            assert "DNS failed" in str(failed["error"])
            assert "CoreDNS" in str(failed["hint"])
            hosts.write_text("127.0.0.1 localhost\n127.0.0.1 store.heap-dumps.example\n")
            until(log, "dump_uploaded")
        assert whole(store) == [digest(SMALL)]


def made(folder: Path) -> Certificates:
    folder.mkdir()
    return make_certificates(folder)


def test_a_store_whose_ca_is_renewed_is_trusted_as_soon_as_the_file_has_the_new_one(tmp_path: Path) -> None:
    """cert-manager renews the CA, the store gets its new certificate first, the pod's ConfigMap follows."""
    old, new = (made(tmp_path / name) for name in ("old", "new"))
    bundle, context = tmp_path / "ca.pem", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    def trust(ca: Path) -> None:
        shutil.copy(ca, tmp_path / "next")
        (tmp_path / "next").replace(bundle)

    context.load_cert_chain(old.certificate, old.key)
    trust(old.ca)
    with fake_store(Ways(http_1_0=True), tls=context) as store:  # a connection for each request
        node = Node(tmp_path, store)
        node.dump(SMALL)
        with running(node, AWS_CA_BUNDLE=str(bundle)) as log:
            until(log, "dump_uploaded")
            context.load_cert_chain(new.certificate, new.key)
            other = a_dump(SMALL_BYTES, seed=3)
            node.dump(other, "second.hprof")
            failed = until(log, "store_failed")
            assert "TLS failed" in str(failed["error"])
            trust(new.ca)
            until(log, "store_recovered")
            end = time.monotonic() + 90
            while len(store.dumps) < 2 and time.monotonic() < end:
                time.sleep(0.1)
        assert sorted(whole(store)) == sorted([digest(SMALL), digest(other)])


def test_the_bucket_of_a_tenant_of_ceph(tmp_path: Path) -> None:
    """`tenant:bucket` stands in the path as it is, however the SDK would encode it."""
    with fake_store() as store:
        node = Node(tmp_path, store)
        node.dump(SMALL)
        node.upload(S3_BUCKET=f"acme:{BUCKET}")
        assert whole(store) == [digest(SMALL)]
        assert store.buckets == {f"acme:{BUCKET}"}
