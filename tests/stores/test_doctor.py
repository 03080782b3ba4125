"""The doctor at real stores: it names the one right that the credentials lack, and leaves nothing behind."""

from __future__ import annotations

import json

import pytest

from dumpagent.doctor.access import rights
from dumpagent.doctor.canary import canary
from dumpagent.doctor.finding import Result
from tests.harness.stores.server import StoreServer
from tests.stores.conftest import Connect

ACTIONS = {
    "put": "s3:PutObject",
    "get": "s3:GetObject",
    "list": "s3:ListBucket",
    "abort": "s3:AbortMultipartUpload",
    "delete": "s3:DeleteObject",
}


@pytest.mark.parametrize("name", ["swift", "ceph"])
def test_whoever_owns_the_bucket_may_do_everything_and_nothing_is_left(
    name: str, request: pytest.FixtureRequest, connect: Connect
) -> None:
    server: StoreServer = request.getfixturevalue(name)
    store = connect(server)
    found = list(rights(store, ".dumpagent-doctor/x", canary(1)))
    assert {finding.result for finding in found} == {Result.OK}, found
    assert [found for found in store.objects("") if not found.key.endswith("/trial")] == []
    assert store.open_uploads("") == []


# Not "get": on Ceph whoever has written an object may read it, whatever the policy says.
@pytest.mark.parametrize("missing", ["put", "list", "abort", "delete"])
def test_the_one_right_that_a_policy_leaves_out_is_named(
    missing: str, ceph: StoreServer, ceph_ia: StoreServer, connect: Connect
) -> None:
    bucket = ceph.new_bucket()
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": [f"arn:aws:iam:::user/{ceph_ia.access_key}"]},
        "Action": [action for name, action in ACTIONS.items() if name != missing],
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    ceph.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))
    found = {finding.name: finding for finding in rights(connect(ceph_ia, bucket), "x", canary(1))}
    assert found[missing].result in (Result.FAILED, Result.WARNING), found
    assert ACTIONS[missing] in found[missing].fix
    assert "give these credentials" in found[missing].fix
