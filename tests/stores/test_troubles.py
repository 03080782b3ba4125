"""Every way in which a store can be set up wrongly is told with what happened and what to do about it."""

from __future__ import annotations

import datetime as dt
import os
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dumpagent.dumps.keys import is_own_key
from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.store.clock import StoreClock
from dumpagent.store.protocol import Body, LookRefused
from dumpagent.store.s3.store import S3Store
from tests.harness.faults import Fault, FaultProxy, always
from tests.harness.stores.server import StoreServer, free_ports
from tests.stores.conftest import Connect

DUMP = Body(b"a dump", zlib.crc32(b"a dump"))
REAL = ["swift", "swift_tls", "ceph", "ceph_tls"]
HTTP = ["swift", "ceph"]
TLS = ["swift_tls", "ceph_tls"]


@pytest.fixture
def server(request: pytest.FixtureRequest) -> StoreServer:
    server: StoreServer = request.getfixturevalue(request.param)
    return server


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("server", names, indirect=True)


def trouble(store: S3Store, kind: type[DumpagentError]) -> str:
    """Give message and hint of what `check` and a first `put` raise, which is the same kind of error."""
    with pytest.raises(kind) as checked:
        store.check()
    with pytest.raises(kind):
        store.put("k", DUMP, {})
    assert store.name in str(checked.value)
    assert checked.value.hint
    return f"{checked.value}\n{checked.value.hint}"


@on(*REAL)
def test_a_wrong_secret(server: StoreServer, connect: Connect) -> None:
    said = trouble(connect(server, attempts=1, AWS_SECRET_ACCESS_KEY="another"), Refused)
    assert "403" in said
    assert "AWS_SECRET_ACCESS_KEY" in said


@on(*REAL)
def test_an_access_key_that_the_store_does_not_know(server: StoreServer, connect: Connect) -> None:
    said = trouble(connect(server, attempts=1, AWS_ACCESS_KEY_ID="nobody"), Refused)
    assert "403" in said
    assert "AWS_ACCESS_KEY_ID" in said


@on("moto", *REAL)
def test_a_bucket_that_is_not_there(server: StoreServer, connect: Connect) -> None:
    said = trouble(connect(server, "no-such-bucket", attempts=1), Refused)
    assert "404 NoSuchBucket" in said
    assert "S3_BUCKET" in said


@on("moto")
def test_what_a_listing_of_everything_says_is_one_sentence(server: StoreServer, connect: Connect) -> None:
    store = connect(server, "no-such-bucket", attempts=1)
    for ask in (lambda: list(store.objects("")), lambda: store.open_uploads("")):
        with pytest.raises(Refused) as refused:
            ask()
        assert "  " not in str(refused.value)


@on("moto", "swift")
def test_a_bucket_name_that_cannot_be(server: StoreServer, connect: Connect) -> None:
    said = trouble(connect(server, "Not A Bucket/", attempts=1), Refused)
    assert "S3_BUCKET" in said


@on("swift")
def test_a_wrong_region(server: StoreServer, connect: Connect) -> None:
    """AWS names the right region in its answer, and so does the hint. Swift and Ceph take any region."""
    with FaultProxy(server, always(Fault.WRONG_REGION)) as proxy:
        said = trouble(connect(proxy.server, "b", attempts=1), Refused)
    assert "set AWS_DEFAULT_REGION to the bucket's region: eu-central-1" in said


@on("swift")
def test_expired_credentials(server: StoreServer, connect: Connect) -> None:
    with FaultProxy(server, always(Fault.EXPIRED_TOKEN)) as proxy:
        said = trouble(connect(proxy.server, "b", attempts=1), Refused)
    assert "renew the temporary credentials" in said


@on(*REAL)
@pytest.mark.parametrize("off_s", [3600, -3600])
def test_a_node_whose_clock_is_an_hour_off_signs_by_the_stores(
    server: StoreServer, connect: Connect, monkeypatch: pytest.MonkeyPatch, off_s: int
) -> None:
    # The node's clock, as the SDK and the agent read it: a test cannot set the machine's.
    monkeypatch.setitem(
        cast("dict[str, Any]", StoreClock.__init__.__kwdefaults__), "now", lambda: time.time() + off_s
    )
    store = connect(server, attempts=1)  # makes a bucket with the right time
    monkeypatch.setattr(
        "botocore.auth.get_current_datetime",
        lambda *_args, **_more: dt.datetime.fromtimestamp(time.time() + off_s, dt.UTC).replace(tzinfo=None),
    )
    store.check()
    store.put("k", Body(b"dump", zlib.crc32(b"dump")), {})
    assert store.look("k")
    assert store.profile.clock_ahead_s == pytest.approx(-off_s, abs=60)


@on("swift")
def test_no_credentials_at_all(server: StoreServer, connect: Connect) -> None:
    said = trouble(connect(server, attempts=1, AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None), Refused)
    assert "no credentials" in said
    assert "AWS_ACCESS_KEY_ID" in said


@on("swift")
def test_half_of_the_credentials(server: StoreServer, connect: Connect) -> None:
    said = trouble(connect(server, attempts=1, AWS_SECRET_ACCESS_KEY=None), Refused)
    assert "AWS_SECRET_ACCESS_KEY" in said


def nobody_at(url: str) -> StoreServer:
    return StoreServer("nobody", url, "key", "secret")


def test_a_port_where_nobody_listens(connect: Connect) -> None:
    said = trouble(connect(nobody_at(f"http://127.0.0.1:{free_ports(1)[0]}"), "b", attempts=1), Unreachable)
    assert "S3_ENDPOINT_URL" in said


def test_a_host_name_that_does_not_exist(connect: Connect) -> None:
    said = trouble(connect(nobody_at("http://no-such-host.invalid"), "b", attempts=1), Unreachable)
    assert "no-such-host.invalid" in said
    assert "DNS" in said


def test_a_proxy_that_is_not_there(connect: Connect) -> None:
    proxy = f"http://127.0.0.1:{free_ports(1)[0]}"
    store = connect(nobody_at("http://store.invalid"), "b", attempts=1, HTTP_PROXY=proxy)
    said = trouble(store, Unreachable)
    assert proxy.removeprefix("http://") in said
    assert "HTTPS_PROXY" in said


@pytest.fixture
def mute() -> Iterator[StoreServer]:
    """Something that accepts connections and hangs up: a load balancer with nothing behind it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # One connection is accepted by the kernel; closing the listener at once would refuse it instead.
        listener.settimeout(30)

        def hang_up() -> None:
            while True:
                try:
                    listener.accept()[0].close()
                except OSError:
                    return

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        yield nobody_at(f"http://127.0.0.1:{listener.getsockname()[1]}")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_load_balancer_with_nothing_behind_it(mute: StoreServer, connect: Connect) -> None:
    said = trouble(connect(mute, "b", attempts=1), Unreachable)
    assert "S3_ENDPOINT_URL" in said


@on(*TLS)
def test_a_private_ca_is_trusted_by_its_file(server: StoreServer, connect: Connect) -> None:
    connect(server).check()


@on(*TLS)
def test_a_ca_that_is_not_trusted(server: StoreServer, connect: Connect) -> None:
    said = trouble(connect(server, attempts=1, AWS_CA_BUNDLE=None), Unreachable)
    assert "certificate" in said.lower()
    assert "AWS_CA_BUNDLE" in said


@on("swift_tls")
def test_a_ca_file_that_is_not_there(server: StoreServer, connect: Connect) -> None:
    store = connect(server, attempts=1, AWS_CA_BUNDLE="/no/such/ca.pem")
    with pytest.raises(DumpagentError) as error:
        store.check()
    assert "No such file" in str(error.value)
    assert "AWS_CA_BUNDLE" in error.value.hint


@on("swift_tls")
def test_a_ca_file_that_holds_no_certificate(server: StoreServer, connect: Connect, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("not a certificate\n")
    store = connect(server, attempts=1, AWS_CA_BUNDLE=os.fspath(tmp_path / "ca.pem"))
    with pytest.raises(DumpagentError) as error:
        store.check()
    assert "AWS_CA_BUNDLE" in error.value.hint


@on(*TLS)
def test_http_to_a_port_that_speaks_tls(server: StoreServer, connect: Connect) -> None:
    bucket = server.new_bucket()
    plain = server.endpoint_url.replace("https:", "http:")
    store = connect(server, bucket, attempts=1, S3_ENDPOINT_URL=plain)
    with pytest.raises(DumpagentError) as error:
        store.check()
    assert "S3_ENDPOINT_URL" in error.value.hint


@on(*HTTP)
def test_https_to_a_port_that_speaks_http(server: StoreServer, connect: Connect) -> None:
    tls = server.endpoint_url.replace("http:", "https:")
    said = trouble(connect(server, "b", attempts=1, S3_ENDPOINT_URL=tls), Unreachable)
    assert "http/https" in said


@on("ceph")
def test_credentials_that_may_write_but_not_look(
    server: StoreServer, ceph_ia: StoreServer, connect: Connect
) -> None:
    """A dump can be stored; that nobody can look at it is told as such, and is no reason to stop."""
    bucket = server.new_bucket()
    server.client().put_bucket_policy(
        Bucket=bucket,
        Policy=f"""{{"Version": "2012-10-17", "Statement": [{{
            "Effect": "Allow", "Principal": {{"AWS": ["arn:aws:iam:::user/{ceph_ia.access_key}"]}},
            "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::{bucket}/*"]}}]}}""",
    )
    store = connect(ceph_ia, bucket, attempts=1)
    with pytest.raises(LookRefused) as checked:
        store.check()
    assert "s3:ListBucket" in checked.value.hint
    with pytest.raises(LookRefused):
        store.look("k")
    store.put("k", DUMP, {})
    listed = server.client().list_objects_v2(Bucket=bucket)["Contents"]
    found = {entry["Key"]: entry["Size"] for entry in listed if not is_own_key(entry["Key"])}
    assert found == {"k": DUMP.size_bytes}
