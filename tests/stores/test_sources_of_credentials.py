"""Keys that change while the agent runs: whoever gives them is asked anew when the store no longer takes the old ones."""

from __future__ import annotations

import datetime as dt
import json
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dumpagent.errors import Refused
from dumpagent.settings import S3
from dumpagent.store.protocol import Body
from dumpagent.store.s3.store import S3Store
from tests.harness.stores.fake import BUCKET, FakeStore, Ways, fake_store
from tests.harness.stores.server import HOST
from tests.harness.sts import Sts

OLD, NEW = "AKIAOLD0000000000001", "AKIANEW0000000000002"
BODY = Body(b"bytes", zlib.crc32(b"bytes"))
# What stores say of keys that are no longer theirs: AWS, Ceph after a change of the secret, gateways with a policy, Swift.
CODES = [(403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch"), (403, "AccessDenied"), (401, "Unauthorized"),
         (400, "ExpiredToken"), (400, "InvalidToken")]  # fmt: skip


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


def the_store(fake: FakeStore) -> S3Store:
    return S3Store(S3(bucket=BUCKET, endpoint_url=fake.endpoint_url))


def replace(file: Path, text: str) -> None:
    """Put a new file in place of the old one, as Vault's agent and the kubelet do."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


@pytest.mark.parametrize("wrong_key", CODES, ids=[code for _, code in CODES])
def test_keys_in_a_file_that_is_replaced(
    tmp_path: Path, environ: pytest.MonkeyPatch, wrong_key: tuple[int, str]
) -> None:
    """Vault's agent, External Secrets, a sidecar: whatever the store says of the old keys."""
    file = tmp_path / "credentials"
    environ.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    with fake_store(Ways(wrong_key=wrong_key)) as fake:
        fake.access_key = OLD
        replace(file, f"[default]\naws_access_key_id = {OLD}\naws_secret_access_key = x\n")
        store = the_store(fake)
        store.put("first", BODY, {})
        fake.access_key = NEW
        replace(file, f"[default]\naws_access_key_id = {NEW}\naws_secret_access_key = y\n")
        store.put("second", BODY, {})
        assert set(fake.dumps) == {"first", "second"}


def test_a_program_that_gives_the_keys(tmp_path: Path, environ: pytest.MonkeyPatch) -> None:
    """`credential_process`, as Vault's and other makers' helpers are called."""
    keys, config = tmp_path / "keys.json", tmp_path / "config"
    config.write_text(f"[default]\ncredential_process = cat {keys}\n")
    environ.setenv("AWS_CONFIG_FILE", str(config))
    environ.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with fake_store() as fake:
        fake.access_key = OLD
        replace(keys, json.dumps({"Version": 1, "AccessKeyId": OLD, "SecretAccessKey": "x"}))
        store = the_store(fake)
        store.put("first", BODY, {})
        fake.access_key = NEW
        replace(keys, json.dumps({"Version": 1, "AccessKeyId": NEW, "SecretAccessKey": "y"}))
        store.put("second", BODY, {})
        assert set(fake.dumps) == {"first", "second"}


@dataclass
class PodIdentity:
    """The agent of EKS Pod Identity on the node: gives keys to whoever shows the token.

    Source: EKS User Guide, "How EKS Pod Identity works"; SDK reference, "Container credential provider".
    """

    token: str
    key: str
    url: str = ""
    asked: list[str] = field(default_factory=list)


@contextmanager
def pod_identity(token: str, key: str) -> Iterator[PodIdentity]:
    agent = PodIdentity(token, key)

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            shown = self.headers.get("Authorization", "")
            agent.asked.append(shown)
            expires = dt.datetime.now(dt.UTC) + dt.timedelta(hours=6)
            body = json.dumps({
                "AccessKeyId": agent.key, "SecretAccessKey": "x", "Token": "t", "AccountId": "1",
                "Expiration": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }).encode()  # fmt: skip
            self.send_response(200 if shown == agent.token else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer((HOST, 0), Answer)
    agent.url = f"http://{HOST}:{server.server_port}/v1/credentials"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield agent
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_eks_pod_identity_gives_new_keys_for_the_token_of_the_day(
    tmp_path: Path, environ: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    environ.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    with fake_store() as fake, pod_identity("morning", OLD) as agent:
        environ.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url)
        fake.access_key = OLD
        replace(token, "morning")
        store = the_store(fake)
        store.put("first", BODY, {})
        fake.access_key = agent.key = NEW
        agent.token = "evening"
        replace(token, "evening")
        store.put("second", BODY, {})
        assert set(fake.dumps) == {"first", "second"}
        assert agent.asked == ["morning", "evening"]


def test_a_source_that_has_no_other_keys_is_asked_once_a_minute(
    tmp_path: Path, environ: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    environ.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(token))
    with fake_store() as fake, pod_identity("token", OLD) as agent:
        environ.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.url)
        replace(token, "token")
        fake.access_key = NEW
        store = the_store(fake)
        for _ in range(3):
            with pytest.raises(Refused, match="InvalidAccessKeyId"):
                store.check()
        assert len(agent.asked) == 2


def test_a_pod_identity_whose_token_is_not_mounted_is_told_by_its_variable(
    tmp_path: Path, environ: pytest.MonkeyPatch
) -> None:
    environ.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "none"))
    environ.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://{HOST}:9/v1/credentials")
    with fake_store() as fake, pytest.raises(Refused) as refused:
        the_store(fake).check()
    assert "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE" in refused.value.hint


def test_a_role_that_a_profile_assumes_with_the_keys_of_another(
    tmp_path: Path, environ: pytest.MonkeyPatch
) -> None:
    """`role_arn` with `source_profile`: a bucket of another account."""
    (tmp_path / "config").write_text(
        "[profile dumps]\nrole_arn = arn:aws:iam::123456789012:role/dumps\nsource_profile = base\nregion = us-east-1\n"
    )
    (tmp_path / "credentials").write_text(
        "[base]\naws_access_key_id = AKIABASE000000000001\naws_secret_access_key = s\n"
    )
    with fake_store() as fake, Sts(fake.server, token="AKIABASE000000000001") as sts:
        environ.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        environ.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        environ.setenv("AWS_PROFILE", "dumps")
        environ.setenv("AWS_ENDPOINT_URL_STS", sts.url)
        the_store(fake).put("first", BODY, {})
        assert set(fake.dumps) == {"first"}
        assert sts.asked == ["AKIABASE000000000001"]
