"""A dump is stored once, byte for byte, whatever HTTP the store, or what stands before it, speaks.

The ways are played by the fake of tests/harness/stores/fake.py; each was told of in public by somebody.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.stores.fake import BUCKET, Ways, fake_store
from tests.stores.test_quirks import LARGE, MIB, SMALL, Node, a_dump, stored_once, whole

pytestmark = pytest.mark.slow

WAYS = {
    "weak-etags": Ways(weak_etags=True),
    "no-last-modified": Ways(lacks_headers=("Last-Modified",)),
    "no-etag": Ways(lacks_headers=("ETag",)),
    "chunked-answers": Ways(chunked=True),
    "head-without-length": Ways(lacks_headers=("Content-Length",), http_1_0=True),
    "lower-case-headers": Ways(lower_case=True),
    "http-1.0": Ways(http_1_0=True),
    "413-before-the-body": Ways(max_body_bytes=8 * MIB, hurries_413=True),
    "slow-down": Ways(slow_down=3, retry_after_s=3),
    "429": Ways(slow_down=3, slow_down_status=429),
    "complete-200-with-an-error": Ways(complete_says="error"),
    "complete-200-with-nothing": Ways(complete_says="nothing"),
    "complete-200-with-html": Ways(complete_says="html"),
    "complete-200-with-blanks-first": Ways(complete_says="blanks"),
    "listing-as-version-1": Ways(pages=1, ignores_list_v2=True),
    "no-uploads-in-parts": Ways(lacks_multipart=True),
    "clock-an-hour-ahead": Ways(clock_off_s=3600),
    "a-page-with-403-first": Ways(passing=(403, "", 1)),
}
# Ways that were seen to make no difference between large and small.
MORE_WAYS = {
    "clock-ten-years-behind": Ways(clock_off_s=-3650 * 86400),
    "signed-bodies-only": Ways(signed_payload_only=True),
    "unsorted-listings": Ways(unsorted=True, ignores_start_after=True),
    "keys-encoded-in-listings": Ways(encodes_keys=True),
    "names-of-255-bytes": Ways(component_max_bytes=255, no_object_below_an_object=True),
    "little-metadata": Ways(metadata_max_bytes=512),
    "etags-that-are-no-md5": Ways(random_etags=True),
    "no-ranges": Ways(ignores_ranges=True),
    "403-where-nothing-is": Ways(hides_missing=True),
    "conflicts-first": Ways(conflicts=2),
    "request-timeouts": Ways(passing=(400, "RequestTimeout", 1)),
    "bad-gateways": Ways(passing=(502, "", 1)),
    "misdirected": Ways(passing=(421, "", 1)),
    "closed-by-a-balancer": Ways(passing=(499, "", 1)),
    "too-large-with-400": Ways(part_max_bytes=8 * MIB),
    "resets": Ways(resets=2),
    "hangs-up-after-each-answer": Ways(hangs_up=True),
    "complete-504-and-done": Ways(complete_says="504"),
}


@pytest.mark.parametrize("way", [*WAYS, *MORE_WAYS])
def test_a_store_that_speaks_http_in_its_own_way_holds_a_large_dump_once(tmp_path: Path, way: str) -> None:
    stored_once(tmp_path, {**WAYS, **MORE_WAYS}[way], LARGE)


@pytest.mark.parametrize("way", [name for name in WAYS if not name.startswith("complete")])
def test_a_store_that_speaks_http_in_its_own_way_holds_a_small_dump_once(tmp_path: Path, way: str) -> None:
    stored_once(tmp_path, WAYS[way], SMALL)


def test_a_listing_of_many_pages_in_the_old_form_shows_every_dump(tmp_path: Path) -> None:
    with fake_store(Ways(pages=2, ignores_list_v2=True)) as store:
        node = Node(tmp_path, store)
        for number in range(5):
            node.dump(a_dump(1000, seed=number), f"d{number}.hprof")
        node.upload()
        listed = subprocess.run(
            [sys.executable, "-m", "dumpagent", "ls", "--all", "--s3-bucket", BUCKET],
            env={**node.environment}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert listed.returncode == 0, listed.stderr
        assert [f"d{number}.hprof" in listed.stdout for number in range(5)] == [True] * 5
        assert len(whole(store)) == 5


TOLD = {
    "portal": (Ways(html=(200, "<html><body>Please log in<br></body></html>")), "no S3 store"),
    "web-server": (Ways(html=(404, "<html><body>nginx</body></html>")), "S3_ENDPOINT_URL"),
    "to-https": (Ways(moved_to=(308, "https://s3.example.com/dumps")), "https://s3.example.com"),
    "elsewhere": (Ways(moved_to=(307, "http://other.example.com/dumps?x=1")), "http://other.example.com"),
    "nowhere": (Ways(moved_to=(301, "")), "AWS_DEFAULT_REGION"),
}


@pytest.mark.parametrize("way", TOLD)
def test_an_endpoint_that_is_no_store_is_told_as_such_by_upload_and_doctor(tmp_path: Path, way: str) -> None:
    ways, wanted = TOLD[way]
    with fake_store(ways) as store:
        node = Node(tmp_path, store)
        node.dump(SMALL)
        code, lines = node.run("upload", "--once")
        assert code == 1
        assert wanted in str(lines)
        assert "agent_faulty" not in str(lines)
        doctor = subprocess.run(
            [sys.executable, "-m", "dumpagent", "doctor", "--store"],
            env=node.environment, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert doctor.returncode == 1
        assert wanted in " ".join((doctor.stdout + doctor.stderr).split())
