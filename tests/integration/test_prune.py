"""`dumpagent reindex` and `dumpagent prune` on a bucket over the wire: what goes is gone, and all else stays."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import zlib

import pytest

from tests.harness.hprof import Maker
from tests.harness.stores.server import StoreServer

pytestmark = [pytest.mark.slow]
DUMP = Maker().dump(segments=1)


def run(server: StoreServer, bucket: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dumpagent", *words],
        env={**os.environ, **server.environment(bucket)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def fill(server: StoreServer, bucket: str, count: int) -> list[str]:
    """Store dumps of one workload, oldest first, ten days apart, as an agent without an index does."""
    keys = []
    for number in range(count):
        when = dt.datetime.now(dt.UTC) - dt.timedelta(days=10 * (count - number))
        key = f"shop_cart-{number}/java_pid1.hprof"
        metadata = {
            "node": "worker-1",
            "dump-time": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "verdict": "complete",
            "cause": "oom",
            "original-path": key,
            "original-size": str(len(DUMP)),
            "crc32": f"{zlib.crc32(DUMP):08x}",
            "namespace": "shop",
            "pod": f"cart-{number}",
            "workload": "cart",
            "agent-version": "0.2.0",
        }
        server.client().put_object(Bucket=bucket, Key=key, Body=DUMP, Metadata=metadata)
        keys.append(key)
    return keys


def keys_in(server: StoreServer, bucket: str) -> set[str]:
    found = server.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return {stored["Key"] for stored in found if not stored["Key"].startswith(".dumpagent/")}


@pytest.mark.parametrize("versioned", [False, True])
def test_old_dumps_go_with_their_versions_and_exactly_as_the_dry_run_said(
    moto: StoreServer, versioned: bool
) -> None:
    bucket, client = moto.new_bucket(), moto.client()
    if versioned:
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    keys = fill(moto, bucket, 10)
    client.put_object(Bucket=bucket, Key=keys[4] + ".report.json", Body=b"{}")
    client.put_object(Bucket=bucket, Key=keys[4] + "x", Body=b"of somebody else")
    assert "10 entries written" in run(moto, bucket, "reindex").stderr
    assert "10 dumps have an index entry" in run(moto, bucket, "reindex").stderr
    dry = run(moto, bucket, "prune", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    said = {line.split()[-1] for line in dry.stdout.splitlines()}
    assert keys_in(moto, bucket) > said, "a dry run deletes nothing"
    done = run(moto, bucket, "prune")
    assert done.returncode == 0, done.stderr
    # First, the last three; the first is the largest too, since all are alike. Younger than 30 days are the last three.
    assert said == set(keys[1:-3])
    assert keys_in(moto, bucket) == {keys[0], *keys[-3:], keys[4] + "x"}
    listed = run(moto, bucket, "ls", "--json")
    assert len(listed.stdout.splitlines()) == 4, "the index entries went too"
    versions = client.list_object_versions(Bucket=bucket, Prefix="shop_")
    left = {found["Key"] for found in [*versions.get("Versions", []), *versions.get("DeleteMarkers", [])]}
    assert left == keys_in(moto, bucket), "no version of a deleted dump costs money"


def test_a_dump_under_a_hold_stays_and_the_exit_code_tells(moto: StoreServer) -> None:
    client, bucket = moto.client(), f"held-{os.getpid()}"
    client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    keys = fill(moto, bucket, 6)
    client.put_object_retention(
        Bucket=bucket,
        Key=keys[1],
        Retention={"Mode": "COMPLIANCE", "RetainUntilDate": dt.datetime.now(dt.UTC) + dt.timedelta(days=1)},
    )
    assert run(moto, bucket, "reindex").returncode == 0
    done = run(moto, bucket, "prune")
    assert done.returncode == 1
    assert f"kept {keys[1]}" in done.stderr
    assert keys[1] in keys_in(moto, bucket)
    assert keys[2] not in keys_in(moto, bucket)


def test_a_prune_without_credentials_or_index_says_what_to_do(moto: StoreServer) -> None:
    bucket = moto.new_bucket()
    moto.client().put_object(Bucket=bucket, Key="x.hprof", Body=b"?")
    done = run(moto, bucket, "prune")
    assert done.returncode == 0
    assert "1 objects without an index entry are left alone" in done.stderr
    assert keys_in(moto, bucket) == {"x.hprof"}
