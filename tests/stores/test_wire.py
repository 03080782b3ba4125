"""A dump is stored once, byte for byte, whatever HTTP the store, or what stands before it, speaks.

The ways are played by the fake of tests/harness/stores/fake.py; each was told of in public by somebody.
"""

from __future__ import annotations

import os
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from dumpagent.errors import Unreachable
from dumpagent.settings import S3
from dumpagent.store.s3 import session
from dumpagent.store.s3.store import S3Store
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


# -- answers that are no store's --------------------------------------------------------------------------------


def _head(more: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n{more}\r\n".encode()


def _without_end(connection: socket.socket) -> None:
    connection.sendall(_head("Transfer-Encoding: chunked\r\n", "403 Forbidden"))
    while True:
        connection.sendall(b"100000\r\n" + b"x" * MIB + b"\r\n")


def _of_many_elements(connection: socket.socket) -> None:
    body = b"<ListBucketResult>" + b"<a>" * 1_000_000
    connection.sendall(_head(f"Content-Length: {len(body)}\r\n") + body)


def _of_entities(connection: socket.socket) -> None:
    body = b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><ListBucketResult>&b;</ListBucketResult>'
    connection.sendall(_head(f"Content-Length: {len(body)}\r\n") + body)


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Give the URL of a server that answers every request so, and then hangs up."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            with suppress(OSError):
                answer(self.request)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answer) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("answer", [_without_end, _of_many_elements, _of_entities])
@pytest.mark.parametrize("words", ["ls --all", "upload --once"])
def test_an_answer_that_is_no_stores_fills_no_memory(
    tmp_path: Path, answer: Callable[[socket.socket], None], words: str
) -> None:
    """The uploader's limit is 256 MiB; a store that somebody else runs must not end it."""
    with answering(answer) as url:
        (tmp_path / "dump").mkdir()
        (tmp_path / "dump" / "java_pid1.hprof").write_bytes(SMALL)
        done = subprocess.run(
            ["prlimit", f"--data={256 * MIB}", sys.executable, "-m", "dumpagent", *words.split()],
            env={**os.environ, "S3_BUCKET": BUCKET, "S3_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "A" * 20,
                 "AWS_SECRET_ACCESS_KEY": "s" * 40, "DUMP_ROOT": str(tmp_path / "dump"), "LOG_FORMAT": "json"},
            capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "no S3 store" in done.stderr
    assert "MemoryError" not in done.stderr


def test_an_answer_that_comes_a_byte_at_a_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte begins the SDK's own wait anew."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(_head("Content-Length: 100000\r\n"))
        while True:
            connection.sendall(b" ")
            time.sleep(0.05)

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "A" * 20)
    monkeypatch.setattr(session, "_ANSWER_S", 1.0)
    with answering(drip) as url:
        store = S3Store(S3(bucket=BUCKET, endpoint_url=url), attempts=1)
        with pytest.raises(Unreachable, match="timed out"):
            store.check()
