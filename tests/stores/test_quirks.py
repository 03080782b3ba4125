"""The `dumpagent upload` process stores a dump once, byte for byte, on every store that is unlike S3 in one way.

The stores are played by the fake of tests/harness/stores/fake.py, over the wire; docs/stores.md says which reports.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.harness.hprof import END, NOON_MS, SEGMENT, Maker, record
from tests.harness.stores.fake import BUCKET, OPTIONAL, FakeStore, Ways, fake_store

pytestmark = pytest.mark.slow  # each runs the real process, some several times
MIB = 1 << 20
LARGE_BYTES, SMALL_BYTES = 40 * MIB, 200_000


def a_dump(size_bytes: int, *, seed: int = 1) -> bytes:
    """Give a whole heap dump of about that size, which does not compress."""
    maker = Maker(time_ms=NOON_MS + seed)
    array = random.Random(seed).randbytes(size_bytes)
    body = b"\x23" + maker.id(0x5000) + bytes(4) + struct.pack(">I", len(array)) + b"\x08" + array
    return maker.head() + record(SEGMENT, body) + record(END)


SMALL, LARGE = a_dump(SMALL_BYTES), a_dump(LARGE_BYTES, seed=2)


@dataclass
class Node:
    """A volume with dumps and an agent that runs over it as a process of its own."""

    root: Path
    store: FakeStore
    more: dict[str, str] = field(default_factory=dict)

    def dump(self, content: bytes, name: str = "java_pid1.hprof") -> None:
        path = self.root / "dump" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (NOON_MS / 1000, NOON_MS / 1000))

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            **self.store.server.environment(BUCKET),
            "DUMP_ROOT": str(self.root / "dump"),
            "LOG_FORMAT": "json",
            "NODE_NAME": "node-1",
            **self.more,
        }

    def run(self, *words: str, **more: str) -> tuple[int, list[dict[str, object]]]:
        """Run a command of the agent's; give its exit code and the lines of its log."""
        environment = {**self.environment, **more}
        done = subprocess.run(
            [sys.executable, "-m", "dumpagent", *words],
            env=environment, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
        if not lines and done.stderr:
            lines = [{"event": "said", "error": done.stderr}]
        return done.returncode, lines

    def upload(self, **more: str) -> list[dict[str, object]]:
        """Run one pass, which must succeed; give the log."""
        code, lines = self.run("upload", "--once", **more)
        assert code == 0, lines
        return lines

    def lose_state(self) -> None:
        subprocess.run(["rm", "-rf", str(self.root / "dump" / ".dumpagent")], check=True)


def stored_once(tmp_path: Path, ways: Ways, content: bytes, **more: str) -> FakeStore:
    """Upload a dump twice, the second time without the state; the store holds it once, byte for byte."""
    with fake_store(ways) as store:
        node = Node(tmp_path, store, more)
        node.dump(content)
        first = node.upload()
        assert "dump_uploaded" in [line["event"] for line in first]
        assert whole(store) == [digest(content)]
        node.lose_state()
        node.upload()
        assert whole(store) == [digest(content)]
        if "list-uploads" not in ways.refuses and "abort" not in ways.refuses:
            assert store.uploads == {}, "nothing is left open"
        assert len(store.own) <= 2, "the trial, and one index entry or reservation for the dump"
    return store


def whole(store: FakeStore) -> list[str]:
    """Give the digests of the dumps that the store holds, unpacked."""
    return [
        digest(gzip.GzipFile(fileobj=io.BytesIO(data)).read() if key.endswith(".gz") else data)
        for key, data in sorted(store.dumps.items())
    ]


def digest(content: bytes) -> str:
    """Give what stands for the content where a test fails: a report of the bytes takes minutes and gigabytes."""
    return hashlib.sha256(content).hexdigest()


# -- never against later, every optional request refused --------------------------------------------------------


@pytest.mark.parametrize("status", [501, 505, 405, 400, 403])
@pytest.mark.parametrize("what", OPTIONAL)
def test_a_store_without_an_optional_request_gets_the_dump_all_the_same(
    tmp_path: Path, what: str, status: int
) -> None:
    stored_once(tmp_path, Ways(refuses={what: status}), LARGE, S3_TAGS="team=shop")


@pytest.mark.parametrize("what", OPTIONAL)
def test_a_small_dump_needs_none_of_the_optional_requests(tmp_path: Path, what: str) -> None:
    stored_once(tmp_path, Ways(refuses={what: 501}), SMALL, S3_TAGS="team=shop")


def test_a_store_whose_listings_always_fail_gets_the_dump_all_the_same(tmp_path: Path) -> None:
    stored_once(tmp_path, Ways(refuses={"list": 500}), SMALL)


QUIRKS = {
    "equal-parts": Ways(equal_parts=True),
    "nginx-10m": Ways(max_body_bytes=10 * MIB),
    "nginx-5m": Ways(max_body_bytes=5 * MIB),
    "multipart-metadata-dropped": Ways(drops_multipart_metadata=True),
    "metadata-dropped": Ways(drops_metadata=True),
    "metadata-renamed": Ways(renames_metadata=True),
    "object-lock": Ways(asks_for_digest=True, keeps_everything=True),
    "object-lock-unverified": Ways(asks_for_digest=True, keeps_everything=True, verifies_digests=False),
    "digests-unverified": Ways(verifies_digests=False),
    "seen-late": Ways(seen_after_s=2.5),
    "completes-late": Ways(late_complete_s=4),
    "complete-ignores-conditions": Ways(ignores_conditions="complete"),
    "ignores-conditions": Ways(ignores_conditions="all"),
    "nothing-can-be-deleted": Ways(keeps_everything=True, ignores_conditions="complete"),
    "parts-of-5m-at-least": Ways(part_min_bytes=5 * MIB),
}


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_store_with_a_quirk_holds_the_dump_once(tmp_path: Path, quirk: str, compression: str) -> None:
    stored_once(tmp_path, QUIRKS[quirk], LARGE, COMPRESSION=compression)


@pytest.mark.parametrize("quirk", QUIRKS)
def test_a_store_with_a_quirk_holds_a_small_dump_once(tmp_path: Path, quirk: str) -> None:
    stored_once(tmp_path, QUIRKS[quirk], SMALL)


def test_no_object_ever_stands_under_a_dumps_key_that_is_not_the_dump(tmp_path: Path) -> None:
    """A notification of the bucket starts an analysis of whatever appears there."""
    store = stored_once(tmp_path, Ways(ignores_conditions="complete"), LARGE)
    written = [line for line in store.requests if line.startswith("PUT put ")]
    assert all(".dumpagent/" in line for line in written), written


def test_a_versioned_bucket_keeps_one_version_of_each_object(tmp_path: Path) -> None:
    store = stored_once(tmp_path, Ways(keeps_everything=True), LARGE)
    assert {key: found.versions for key, found in store.objects.items()} == dict.fromkeys(store.objects, 1)


def test_what_a_store_lacks_is_learnt_and_told_once(tmp_path: Path) -> None:
    with fake_store(Ways(refuses={"condition": 501, "class": 400})) as store:
        node = Node(tmp_path, store)
        node.dump(LARGE)
        events = [line["event"] for line in node.upload()]
        assert events.count("storage_class_unknown") == events.count("store_unconditional") == 1
        node.dump(a_dump(LARGE_BYTES, seed=7), "second.hprof")
        again = [line["event"] for line in node.upload()]
        assert "storage_class_unknown" not in again
        assert "store_unconditional" not in again
        assert len(store.dumps) == 2


def test_readers_see_the_metadata_that_the_store_has_dropped_and_none_of_the_agents_own_objects(
    tmp_path: Path,
) -> None:
    with fake_store(Ways(drops_metadata=True)) as store:
        node = Node(tmp_path, store)
        node.dump(LARGE)
        node.upload()
        listed = subprocess.run(
            [sys.executable, "-m", "dumpagent", "ls", "--json"],
            env={**os.environ, **store.server.environment(BUCKET)}, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert ".dumpagent" not in listed
        assert "node-1" in listed
        verified = subprocess.run(
            [sys.executable, "-m", "dumpagent", "verify", "java_pid1.hprof"],
            env={**os.environ, **store.server.environment(BUCKET)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert verified.returncode == 0, verified.stdout + verified.stderr


# -- settings that stores need ----------------------------------------------------------------------------------


def test_every_object_carries_what_the_buckets_policy_asks_for(tmp_path: Path) -> None:
    ways = Ways(sse_required=True, ignores_conditions="complete")
    store = stored_once(tmp_path, ways, LARGE, S3_SSE="aws:kms", S3_SSE_KMS_KEY_ID="key-1", S3_ACL="private")
    for key, found in store.objects.items():
        assert found.headers["x-amz-server-side-encryption"] == "aws:kms", key
        assert found.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1", key
        assert found.headers["x-amz-acl"] == "private", key


def test_a_bucket_whose_policy_asks_for_encryption_is_told_as_such(tmp_path: Path) -> None:
    with fake_store(Ways(sse_required=True)) as store:
        node = Node(tmp_path, store)
        node.dump(SMALL)
        code, lines = node.run("upload", "--once")
        assert code == 1
        assert "S3_SSE" in str(lines)
        assert "explicit" in str(lines)


@pytest.mark.parametrize("style", ["auto", "virtual"])
def test_a_store_that_takes_the_bucket_in_the_host_name_only(tmp_path: Path, style: str) -> None:
    """A proxy stands for the DNS, which knows no such hosts."""
    with fake_store(Ways(virtual_only=True)) as store:
        node = Node(tmp_path, store)
        node.dump(LARGE)
        node.upload(
            S3_ENDPOINT_URL="http://oss.example.invalid",
            HTTP_PROXY=store.endpoint_url,
            S3_ADDRESSING_STYLE=style,
        )
        assert whole(store) == [digest(LARGE)]


@pytest.mark.parametrize("size", ["small", "large"])
def test_a_lifecycle_rule_can_tell_dumps_by_their_verdict_and_workload(tmp_path: Path, size: str) -> None:
    content = SMALL if size == "small" else LARGE
    with fake_store(Ways(ignores_conditions="complete")) as store:
        node = Node(tmp_path, store)
        (tmp_path / "dump").mkdir()
        (tmp_path / "dump" / "shop_checkout-7d4f9c8b6-x2k9q").mkdir()
        node.dump(content, "shop_checkout-7d4f9c8b6-x2k9q/java_pid1.hprof")
        node.upload(S3_TAGS="team=platform&verdict={verdict}&app={namespace}/{workload}&cluster={cluster}")
        tags = {key: found.headers.get("x-amz-tagging") for key, found in store.objects.items()}
        dumps = {key: tag for key, tag in tags.items() if key in store.dumps}
        assert list(dumps.values()) == ["team=platform&verdict=complete&app=shop%2Fcheckout"]
        assert {tag for key, tag in tags.items() if key not in dumps} == {"team=platform"}


def test_tags_that_these_credentials_may_not_set_are_left_out_and_told_once(tmp_path: Path) -> None:
    with fake_store(Ways(refuses={"tags": 403})) as store:
        node = Node(tmp_path, store, {"S3_TAGS": "team=shop"})
        node.dump(SMALL)
        assert [line["event"] for line in node.upload()].count("tags_left_out") == 1
        node.dump(a_dump(SMALL_BYTES, seed=5), "b.hprof")
        assert "tags_left_out" not in [line["event"] for line in node.upload()]
        assert len(store.dumps) == 2
        store.ways.refuses.clear()  # the right is given, and the tags are changed
        node.dump(a_dump(SMALL_BYTES, seed=6), "c.hprof")
        node.upload(S3_TAGS="team=shop&cause={cause}")
        assert store.objects["c.hprof"].headers["x-amz-tagging"] == "team=shop&cause=oom"


def test_part_size_is_an_upper_bound(tmp_path: Path) -> None:
    with fake_store() as store:
        node = Node(tmp_path, store)
        node.dump(LARGE)
        node.upload(S3_PART_SIZE=str(6 * MIB))
        assert sum(" part " in line for line in store.requests) >= len(LARGE) // (6 * MIB)
        assert whole(store) == [digest(LARGE)]


# -- hints that are true ----------------------------------------------------------------------------------------

REFUSALS = {
    "kms": ((403, "AccessDenied", "not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:x"), "kms:GenerateDataKey"),
    "full": ((507, "XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."), "no room left"),
    "never": ((501, "NotImplemented", "not implemented"), "does not know the request"),
    "rights": ((403, "AccessDenied", "Access Denied"), "s3:PutObject"),
    "deny": ((403, "AccessDenied", "with an explicit deny in a service control policy"), "policy denies it"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_is_told_with_the_hint_that_names_the_fix(tmp_path: Path, kind: str) -> None:
    status, wanted = REFUSALS[kind]
    with fake_store(Ways(put_status=status)) as store:
        node = Node(tmp_path, store)
        node.dump(SMALL)
        code, lines = node.run("upload", "--once")
        assert code == 1
        hints = " ".join(str(line.get("hint")) for line in lines)
        assert wanted in hints
        assert "nothing to do" not in hints


# -- credentials that change ------------------------------------------------------------------------------------


def test_keys_that_are_replaced_in_their_file_are_read_again(tmp_path: Path) -> None:
    """Vault and sidecars replace the file; the old keys are then simply unknown to the store."""
    file = tmp_path / "credentials"

    def write(key: str) -> None:
        new = tmp_path / "new"
        new.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = x{key}\n")
        new.replace(file)

    with fake_store() as store:
        store.access_key = "AKIAOLD0000000000001"
        write(store.access_key)
        node = Node(tmp_path, store)
        node.dump(SMALL)
        environment = {
            **os.environ, **store.server.environment(BUCKET), "DUMP_ROOT": str(tmp_path / "dump"),
            "AWS_SHARED_CREDENTIALS_FILE": str(file), "WATCH_INTERVAL": "1", "LOG_FORMAT": "json",
        }  # fmt: skip
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            environment.pop(name, None)
        agent = subprocess.Popen(
            [sys.executable, "-m", "dumpagent", "upload"], env=environment, stderr=subprocess.PIPE
        )
        try:
            _until(lambda: len(store.dumps) == 1)
            store.access_key = "AKIANEW0000000000002"
            write(store.access_key)
            node.dump(a_dump(SMALL_BYTES, seed=9), "second.hprof")
            _until(lambda: len(store.dumps) == 2)
        finally:
            agent.terminate()
            agent.communicate(timeout=60)


def _until(holds: object, *, timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < until, "not in time"
        time.sleep(0.1)
