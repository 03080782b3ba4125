"""Credentials that end while an upload is under way, and roads that lead through a proxy."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

from dumpagent.errors import Refused
from dumpagent.store.protocol import Body, LookRefused, Occupied
from dumpagent.store.reservation import reserve
from dumpagent.store.s3.store import S3Store
from tests.harness.faults import Fault, FaultProxy, Request
from tests.harness.forward_proxy import ForwardProxy
from tests.harness.stores.server import StoreServer, is_dump_key
from tests.harness.sts import Sts
from tests.stores.conftest import Connect

MIB = 1 << 20
FIRST, LAST = os.urandom(5 * MIB), os.urandom(1000)


def body(data: bytes) -> Body:
    return Body(data, zlib.crc32(data))


class Revoking:
    """A plan that refuses every session in `ended`, as a store does whose clock says that it is over."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.seen: list[str] = []

    def __call__(self, request: Request) -> Fault:
        self.seen.append(request.session_token)
        return Fault.EXPIRED_TOKEN if request.session_token in self.ended else Fault.NONE


def irsa(sts_url: str, token_file: Path) -> dict[str, str | None]:
    """Give the variables that a platform's webhook puts into the pod, and none of the keys."""
    return {
        "AWS_ACCESS_KEY_ID": None,
        "AWS_SECRET_ACCESS_KEY": None,
        "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/heap-dumps",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(token_file),
        "AWS_ROLE_SESSION_NAME": "heap-dump-s3-uploader",
        "AWS_ENDPOINT_URL_STS": sts_url,
    }


def upload_in_two_parts(store: S3Store, meanwhile: object) -> None:
    """Send two parts as one object `k`, with `meanwhile` called between them."""
    assert callable(meanwhile)
    upload_id = store.begin("k", {})
    parts = [store.send_part("k", upload_id, 1, body(FIRST))]
    meanwhile()
    parts.append(store.send_part("k", upload_id, 2, body(LAST)))
    store.complete("k", upload_id, parts, crc32=zlib.crc32(FIRST + LAST))


def stored(server: StoreServer, bucket: str) -> bytes:
    return server.client().get_object(Bucket=bucket, Key="k")["Body"].read()


def test_a_session_that_ends_in_mid_upload_is_renewed_with_the_token_that_was_replaced_meanwhile(
    swift: StoreServer, connect: Connect, tmp_path: Path
) -> None:
    bucket, plan, token = swift.new_bucket(), Revoking(), tmp_path / "token"
    token.write_text("the first token")
    with Sts(swift, token="the first token") as sts, FaultProxy(swift, plan) as proxy:
        store = connect(proxy.server, bucket, **irsa(sts.url, token))

        def end_the_session() -> None:
            sts.token = "the second token"
            token.write_text("the second token")  # the kubelet does so long before the first one ends
            plan.ended = {"session-1"}

        upload_in_two_parts(store, end_the_session)
        assert sts.asked == ["the first token", "the second token"]
    assert stored(swift, bucket) == FIRST + LAST
    assert plan.seen.count("session-1") > 1
    assert plan.seen[-1] == "session-2"


def test_a_session_that_is_over_is_known_even_by_a_head_whose_answer_names_no_error(
    swift: StoreServer, connect: Connect, tmp_path: Path
) -> None:
    plan, token = Revoking(), tmp_path / "token"
    token.write_text("a token")
    with Sts(swift, token="a token") as sts, FaultProxy(swift, plan) as proxy:
        store = connect(proxy.server, swift.new_bucket(), **irsa(sts.url, token))
        store.put("k", body(LAST), {})
        plan.ended = {"session-1"}
        found = store.look("k")
    assert found
    assert found.size_bytes == len(LAST)


def test_a_session_that_is_about_to_end_is_renewed_before_the_store_refuses_it(
    swift: StoreServer, connect: Connect, tmp_path: Path
) -> None:
    """The SDK renews in the last ten minutes; a session that lasts less is renewed for each request."""
    bucket, plan, token = swift.new_bucket(), Revoking(), tmp_path / "token"
    token.write_text("a token")
    with Sts(swift, token="a token", lasts_s=300) as sts, FaultProxy(swift, plan) as proxy:
        upload_in_two_parts(connect(proxy.server, bucket, **irsa(sts.url, token)), lambda: None)
        assert len(set(plan.seen)) == len(plan.seen) == sts.given
    assert stored(swift, bucket) == FIRST + LAST


def test_the_token_service_of_another_maker(moto: StoreServer, connect: Connect, tmp_path: Path) -> None:
    bucket, token = moto.new_bucket(), tmp_path / "token"
    token.write_text("a.b.c")
    upload_in_two_parts(connect(moto, bucket, **irsa(moto.endpoint_url, token)), lambda: None)
    assert stored(moto, bucket) == FIRST + LAST


def test_a_web_identity_that_is_over_is_told_as_that_and_not_as_the_stores_refusal(
    swift: StoreServer, connect: Connect, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("yesterday's")
    with Sts(swift, token="today's") as sts:
        store = connect(swift, attempts=1, **irsa(sts.url, token))
        with pytest.raises(Refused, match="STS answered 400 ExpiredTokenException") as refused:
            store.check()
        assert "AWS_WEB_IDENTITY_TOKEN_FILE" in refused.value.hint
        token.write_text("today's")
        store.check()


def test_a_token_file_that_is_not_there(swift: StoreServer, connect: Connect, tmp_path: Path) -> None:
    with Sts(swift, token="a token") as sts:
        store = connect(swift, attempts=1, **irsa(sts.url, tmp_path / "token"))
        with pytest.raises((Refused, OSError), match="token") as refused:
            store.check()
        assert isinstance(refused.value, Refused)
        assert "AWS_WEB_IDENTITY_TOKEN_FILE" in refused.value.hint


def test_temporary_keys_in_a_file_that_is_replaced_in_mid_upload(
    swift: StoreServer, connect: Connect, tmp_path: Path
) -> None:
    """As a sidecar of a secret store writes them."""
    bucket, plan, file = swift.new_bucket(), Revoking(), tmp_path / "credentials"

    def write(session: str) -> None:
        file.write_text(
            f"[default]\naws_access_key_id = {swift.access_key}\naws_secret_access_key = {swift.secret_key}\n"
            f"aws_session_token = {session}\n"
        )

    def end_the_session() -> None:
        write("afternoon")
        plan.ended = {"morning"}

    write("morning")
    with FaultProxy(swift, plan) as proxy:
        nothing = {"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None}
        store = connect(proxy.server, bucket, **nothing, AWS_SHARED_CREDENTIALS_FILE=str(file))
        upload_in_two_parts(store, end_the_session)
    assert stored(swift, bucket) == FIRST + LAST
    assert plan.seen[-1] == "afternoon"


def test_keys_that_have_expired_and_have_no_successor_are_told_at_once(
    swift: StoreServer, connect: Connect
) -> None:
    plan = Revoking()
    plan.ended = {"over"}
    with FaultProxy(swift, plan) as proxy:
        store = connect(proxy.server, swift.new_bucket(), AWS_SESSION_TOKEN="over")
        with pytest.raises(Refused, match="ExpiredToken") as refused:
            store.check()
    assert plan.seen == ["over"]
    assert "AWS_SESSION_TOKEN" in refused.value.hint


@pytest.mark.parametrize("name", ["swift_tls", "ceph_tls"])
def test_https_goes_through_the_tunnel_of_a_proxy_and_trusts_the_private_ca(
    name: str, request: pytest.FixtureRequest, connect: Connect
) -> None:
    server: StoreServer = request.getfixturevalue(name)
    bucket = server.new_bucket()
    with ForwardProxy() as proxy:
        store = connect(server, bucket, HTTPS_PROXY=proxy.url, HTTP_PROXY=None, NO_PROXY=None)
        upload_in_two_parts(store, lambda: None)
        assert set(proxy.tunnels) == {server.endpoint_url.removeprefix("https://")}
        assert proxy.passed == []
        assert stored(server, bucket) == FIRST + LAST


@pytest.mark.parametrize("name", ["swift", "ceph"])
def test_http_goes_through_a_proxy_request_by_request(
    name: str, request: pytest.FixtureRequest, connect: Connect
) -> None:
    server: StoreServer = request.getfixturevalue(name)
    bucket = server.new_bucket()
    with ForwardProxy() as proxy:
        store = connect(server, bucket, HTTP_PROXY=proxy.url, HTTPS_PROXY=None, NO_PROXY=None)
        upload_in_two_parts(store, lambda: None)
        assert set(proxy.passed) == {server.endpoint_url.removeprefix("http://")}
        assert stored(server, bucket) == FIRST + LAST


def test_a_host_in_no_proxy_is_asked_directly(swift_tls: StoreServer, connect: Connect) -> None:
    with ForwardProxy() as proxy:
        store = connect(swift_tls, HTTPS_PROXY=proxy.url, NO_PROXY="127.0.0.1,.svc")
        store.check()
        assert proxy.tunnels == []


def test_the_token_service_is_asked_through_the_proxy_too(
    swift: StoreServer, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("a token")
    with ForwardProxy() as proxy, Sts(swift, token="a token") as sts:
        variables = irsa(sts.url, tmp_path / "token")
        connect(swift, HTTP_PROXY=proxy.url, HTTPS_PROXY=None, NO_PROXY=None, **variables).check()
        assert sts.url.removeprefix("http://") in proxy.passed


@pytest.fixture
def write_only(ceph: StoreServer, ceph_ia: StoreServer) -> str:
    """A bucket of Ceph into which the user of `ceph_ia` may put objects, and not look."""
    bucket = ceph.new_bucket()
    ceph.client().put_bucket_policy(
        Bucket=bucket,
        Policy=f"""{{"Version": "2012-10-17", "Statement": [{{
            "Effect": "Allow", "Principal": {{"AWS": ["arn:aws:iam:::user/{ceph_ia.access_key}"]}},
            "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::{bucket}/*"]}}]}}""",
    )
    return bucket


def test_write_only_credentials_upload_in_parts_where_keys_are_reserved(
    ceph: StoreServer, ceph_ia: StoreServer, connect: Connect, write_only: str
) -> None:
    store = connect(ceph_ia, write_only, attempts=1, S3_ENDPOINT_URL=ceph.endpoint_url)
    with pytest.raises(LookRefused):
        store.look("k")
    upload_in_two_parts(store, lambda: None)
    listed = ceph.client().list_objects_v2(Bucket=write_only)["Contents"]  # only its writer may read it
    (entry,) = (found for found in listed if is_dump_key(found["Key"]))
    assert (entry["Key"], entry["Size"]) == ("k", len(FIRST + LAST))


def test_write_only_credentials_keep_off_a_key_that_another_agent_has_reserved(
    ceph: StoreServer, ceph_ia: StoreServer, connect: Connect, write_only: str
) -> None:
    theirs = connect(ceph, write_only)
    assert theirs.must_reserve()
    reserve(theirs, "k", {"crc32": "00000001", "original-size": "1"}, prefix="")
    upload_id = theirs.begin("k", {"crc32": "00000001", "original-size": "1"})
    ours = connect(ceph_ia, write_only, attempts=1, S3_ENDPOINT_URL=ceph.endpoint_url)
    with pytest.raises(Occupied):
        reserve(ours, "k", {"crc32": "00000002", "original-size": "2"}, prefix="")
    part = theirs.send_part("k", upload_id, 1, body(LAST))
    theirs.complete("k", upload_id, [part], crc32=zlib.crc32(LAST))
    assert stored(ceph, write_only) == LAST
