"""The replica is asked with its own keys, region, CA and address, whatever the SDK's variables say of the first store."""

from __future__ import annotations

from pathlib import Path

import pytest
from botocore.httpsession import get_cert_path

from dumpagent.settings import S3, Replica
from dumpagent.store.s3.credentials import find_credentials
from dumpagent.store.s3.session import new_session
from dumpagent.store.s3.store import S3Store
from dumpagent.store.trust import ca_file
from dumpagent.store_settings import PUBLIC_CAS, Access, for_replica

_KEYS = Access(access_key_id="SECOND", secret_access_key="second-secret", region="eu-central-1")


@pytest.fixture(autouse=True)
def of_the_first_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Give the process the variables of the first store."""
    (tmp_path / "config").write_text(
        "[profile second]\naws_access_key_id = PROFILE\naws_secret_access_key = profile-secret\n"
    )
    for name, value in {
        "AWS_ACCESS_KEY_ID": "FIRST", "AWS_SECRET_ACCESS_KEY": "first-secret", "AWS_SESSION_TOKEN": "first-token",
        "AWS_DEFAULT_REGION": "us-west-2", "AWS_ENDPOINT_URL": "https://first.example.com",
        "AWS_ENDPOINT_URL_S3": "https://first.example.com", "AWS_CA_BUNDLE": "/first/ca.pem",
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)


def _key(access: Access | None) -> tuple[str, str | None]:
    found = new_session(access).get_credentials()
    assert found
    return found.access_key, found.token


def test_its_own_keys_come_before_the_variables() -> None:
    assert _key(_KEYS) == ("SECOND", None), "the first store's token does not belong to these keys"
    assert find_credentials(_KEYS).temporary is False
    assert _key(Access(profile="second")) == ("PROFILE", None)


def test_without_keys_it_is_asked_with_those_of_the_first_store() -> None:
    assert _key(Access()) == _key(None) == ("FIRST", "first-token")


def test_the_first_stores_address_is_never_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_ENDPOINT_URL sent every dump of a replica on AWS to the first store once more."""
    monkeypatch.delenv("AWS_CA_BUNDLE")
    replica = Replica(
        bucket="b", region="eu-central-1", access_key_id="SECOND", secret_access_key="second-secret"
    )
    client = S3Store(replica.s3, access=replica.access)._requests.connect()
    assert client.meta.endpoint_url == "https://s3.eu-central-1.amazonaws.com"
    assert client.meta.region_name == "eu-central-1"
    first = S3Store(S3(bucket="b"))._requests.connect()
    assert first.meta.endpoint_url == "https://first.example.com"


def test_a_private_ca_of_the_first_store_can_be_left_out() -> None:
    for access, expected in (
        (Access(), "/first/ca.pem"),
        (Access(ca_bundle="/second/ca.pem"), "/second/ca.pem"),
        (Access(ca_bundle=PUBLIC_CAS), get_cert_path(True)),
    ):
        assert new_session(access).get_config_variable("ca_bundle") == expected
    assert ca_file(Access(ca_bundle=PUBLIC_CAS)) == get_cert_path(True)


def test_a_hint_names_the_replicas_settings() -> None:
    hint = "set S3_BUCKET, AWS_ACCESS_KEY_ID or AWS_CA_BUNDLE; S3_PART_SIZE and MY_S3_BUCKET stay"
    assert for_replica(hint) == (
        "set S3_REPLICA_BUCKET, S3_REPLICA_ACCESS_KEY_ID or S3_REPLICA_CA_BUNDLE; S3_PART_SIZE and MY_S3_BUCKET stay"
    )
    assert for_replica(for_replica(hint)) == for_replica(hint)


def test_no_secret_stands_in_a_trace() -> None:
    assert "second-secret" not in repr(_KEYS)
    assert "second-secret" not in f"{Replica(bucket='b', secret_access_key='second-secret')!r}"
