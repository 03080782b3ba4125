"""A replica that is half set up, or no second place at all, is refused by name before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dumpagent.cli.replica import settle_replica
from dumpagent.settings import S3, Replica

FIRST = S3(bucket="dumps", endpoint_url="https://s3.example.com")
AWS = S3(bucket="dumps")

WRONG = {
    "no bucket": (Replica(endpoint_url="https://b"), FIRST, "S3_REPLICA_ENDPOINT_URL is set and S3_REPLICA_BUCKET is not"),
    "keys without a bucket": (Replica(access_key_id="A"), FIRST, "S3_REPLICA_ACCESS_KEY_ID is set and"),
    "half": (Replica(bucket="b", access_key_id="A"), FIRST, "S3_REPLICA_SECRET_ACCESS_KEY is not"),
    "other half": (Replica(bucket="b", secret_access_key="s3cr3t!"), FIRST, "S3_REPLICA_ACCESS_KEY_ID is not"),
    "token alone": (Replica(bucket="b", session_token="t0ken!"), FIRST, "S3_REPLICA_SESSION_TOKEN is set"),
    "line break": (Replica(bucket="b", access_key_id="A\nB", secret_access_key="s"), FIRST, "S3_REPLICA_ACCESS_KEY_ID has a line"),
    "two sources": (Replica(bucket="b", access_key_id="A", secret_access_key="s", profile="default"), FIRST, "both set"),
    "profile": (Replica(bucket="b", profile="nobody"), FIRST, "S3_REPLICA_PROFILE is 'nobody'"),
    "region": (Replica(bucket="b", region="Europe 1"), FIRST, "S3_REPLICA_REGION has a blank"),
    "ca": (Replica(bucket="b", ca_bundle="/nix/ca.pem"), FIRST, "S3_REPLICA_CA_BUNDLE is '/nix/ca.pem'"),
    "bucket": (Replica(bucket="https://b/c"), FIRST, "S3_REPLICA_BUCKET is"),
    "two prefixes": (Replica(bucket="s3://b/x", prefix="y"), FIRST, "S3_REPLICA_PREFIX another"),
    "kms": (Replica(bucket="b", sse_kms_key_id="k"), FIRST, "S3_REPLICA_SSE_KMS_KEY_ID is set, and S3_REPLICA_SSE is"),
    "tags": (Replica(bucket="b", tags="a b"), FIRST, "S3_REPLICA_TAGS "),
    "the same": (Replica(bucket="dumps", endpoint_url="https://S3.example.com:443/"), FIRST, "no second place"),
    "another prefix": (Replica(bucket="dumps", prefix="p", endpoint_url="https://s3.example.com"), FIRST, "no second place"),
    "AWS by two names": (Replica(bucket="s3://dumps", endpoint_url="https://s3.eu-west-1.amazonaws.com"), AWS, "no second place"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_replica_that_cannot_work_is_refused_by_name(kind: str) -> None:
    replica, first, said = WRONG[kind]
    _, wrong = settle_replica(replica, first, {"AWS_CONFIG_FILE": "/nix"})
    assert len(wrong) == 1, wrong
    assert said in str(wrong[0])
    assert wrong[0].hint
    assert not {"s3cr3t!", "t0ken!"} & set(f"{wrong[0]} {wrong[0].hint}".split())


RIGHT = {
    "none": (Replica(), FIRST),
    "the same bucket's name in another store": (Replica(bucket="dumps"), FIRST),
    "another bucket of the same store": (Replica(bucket="b", endpoint_url="https://s3.example.com"), FIRST),
    "keys": (Replica(bucket="b", access_key_id="A", secret_access_key="s", session_token="t"), FIRST),
    "another port": (Replica(bucket="dumps", endpoint_url="https://s3.example.com:9000"), FIRST),
    "public CAs": (Replica(bucket="b", ca_bundle="public"), FIRST),
    "defaults of the manifest": (Replica(storage_class="STANDARD_IA", addressing_style="auto"), FIRST),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_a_replica_that_can_work_is_taken(kind: str) -> None:
    replica, first = RIGHT[kind]
    assert settle_replica(replica, first, {})[1] == []


def test_a_profile_is_looked_for_in_the_files_that_the_sdk_reads(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("[profile second]\nrole_arn = arn:aws:iam::1:role/x\n")
    environ = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": "/nix"}
    assert settle_replica(Replica(bucket="b", profile="second"), FIRST, environ)[1] == []


def test_a_bucket_with_its_prefix_is_taken_as_it_is_meant() -> None:
    settled, wrong = settle_replica(Replica(bucket="s3://b/x/y"), FIRST, {})
    assert (settled.bucket, settled.prefix, wrong) == ("b", "x/y", [])
