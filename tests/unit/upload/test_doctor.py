"""Whatever keeps a dump from the store, the doctor names it and says what to do."""

from __future__ import annotations

import email.utils
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dumpagent.errors import Refused, Unreachable
from dumpagent.model import Identity
from dumpagent.settings import GIB, Place
from dumpagent.store.credentials import Credentials
from dumpagent.store.memory import MemoryStore
from dumpagent.upload.canary import canary
from dumpagent.upload.doctor import Doctor, Finding, Patient, Result
from dumpagent.upload.ledger import Ledger, Receipt
from tests.harness.hprof import Maker


class _Store(BaseHTTPRequestHandler):
    skew_s, slow_s = 0.0, 0.0

    def do_HEAD(self) -> None:
        time.sleep(self.slow_s)
        self.send_response_only(200)
        self.send_header("Date", email.utils.formatdate(time.time() + self.skew_s, usegmt=True))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[str]:
    handler = type("Handler", (_Store,), {})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def examine(
    root: Path,
    endpoint: str,
    store: Any = None,
    *,
    credentials: Any = None,
    patience_s: float = 5.0,
    **more: Any,
) -> dict[str, Finding]:
    """Give the findings by name; of two the worse one."""
    settings: dict[str, Any] = {
        "root": str(root), "state_dir": f"{root}/.dumpagent", "runtime_dir": str(root), "place": Place(node_name="n"),
        "prefix": "dumps", "endpoint_url": endpoint, "ca_bundle": "", "storage_class": "STANDARD_IA", "quiet_s": 0.0,
    }  # fmt: skip
    now = more.pop("now", time.time)
    profile = more.pop("profile", lambda: (True, "crc32"))
    doctor = Doctor(
        Patient(**settings | more), store or MemoryStore(), profile=profile, now=now, patience_s=patience_s,
        find_credentials=credentials or (lambda: Credentials("env", None)),
    )  # fmt: skip
    return {finding.name: finding for finding in doctor.examine()}


def test_with_all_well_the_canary_goes_the_whole_way_and_nothing_is_left(
    tmp_path: Path, endpoint: str
) -> None:
    store = MemoryStore()
    found = examine(tmp_path, endpoint, store)
    for name in ("volume", "volume writes", "space", "DNS", "connection", "clock", "credentials", "bucket",
                 "put", "head", "get", "list", "abort", "delete", "storage class", "digest"):  # fmt: skip
        assert found[name].result is Result.OK, found[name]
    assert list(store.objects("")) == []
    assert store.open_uploads("") == []
    assert list((tmp_path / ".dumpagent").iterdir()) == []


def test_what_fails_or_warns_always_says_what_to_do(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "cut.hprof").write_bytes(Maker().dump()[:-9])
    found = examine(tmp_path, endpoint, _Refusing(), profile=lambda: (False, "none"))
    for finding in found.values():
        assert finding.fix or finding.result in (Result.OK, Result.SKIPPED), finding


class _Refusing(MemoryStore):
    """A store that says no in one way."""

    error: Exception = Refused("the store answered 404 NoSuchBucket", hint="create the bucket")

    def check(self) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (Refused("the store answered 404 NoSuchBucket", hint="create the bucket"), "NoSuchBucket"),
        (
            Refused("the store answered 403 InvalidAccessKeyId", hint="correct AWS_ACCESS_KEY_ID"),
            "InvalidAccessKeyId",
        ),
        (
            Unreachable("the store answered 500 InternalError", hint="look at the store's health"),
            "InternalError",
        ),
    ],
)
def test_a_store_that_refuses_is_named_with_its_hint(
    tmp_path: Path, endpoint: str, error: Exception, words: str
) -> None:
    store = _Refusing()
    store.error = error
    bucket = examine(tmp_path, endpoint, store)["bucket"]
    assert bucket.result is Result.FAILED
    assert words in bucket.seen
    assert bucket.fix


@pytest.mark.parametrize(
    ("skew_s", "result"), [(3600, Result.FAILED), (-3600, Result.FAILED), (120, Result.WARNING)]
)
def test_a_clock_that_is_off_is_named(tmp_path: Path, endpoint: str, skew_s: float, result: Result) -> None:
    clock = examine(tmp_path, endpoint, now=lambda: time.time() + skew_s)["clock"]
    assert clock.result is result
    assert "NTP" in clock.fix


def test_nobody_at_the_endpoint_is_named_and_the_rest_is_skipped(tmp_path: Path) -> None:
    found = examine(tmp_path, "http://127.0.0.1:1")
    assert found["connection"].result is Result.FAILED
    assert "S3_ENDPOINT_URL" in found["connection"].fix
    assert found["bucket"].result is Result.SKIPPED


def test_a_volume_that_is_not_there_is_named(tmp_path: Path, endpoint: str) -> None:
    found = examine(tmp_path / "nowhere", endpoint, state_dir=f"{tmp_path}/state")
    assert found["volume"].result is Result.FAILED
    assert "mounted" in found["volume"].fix
    assert found["mount"].result is Result.FAILED


def test_a_dump_that_left_the_volume_still_counts_for_the_space_that_the_next_one_needs(
    tmp_path: Path, endpoint: str
) -> None:
    store = MemoryStore()
    ledger = Ledger(f"{tmp_path}/.dumpagent", store=store.name)
    ledger.load()
    huge = Identity(1, 1 << 60, 5)
    ledger.record(
        Receipt(huge, "gone.hprof", store.name, "gone.hprof", 7, huge.size_bytes, 1.0, verified=True)
    )
    space = examine(tmp_path, endpoint, store)["space"]
    assert space.result is Result.FAILED
    assert f"the largest dump seen had {huge.size_bytes / GIB:.2f} GiB" in space.seen
    assert f"{2 * huge.size_bytes / GIB:.2f} GiB" in space.fix
    assert "JDK 22+" in space.fix


def test_truncated_dumps_on_the_volume_are_named(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "cut.hprof").write_bytes(Maker().dump()[:-9])
    dumps = examine(tmp_path, endpoint)["dumps"]
    assert dumps.result is Result.WARNING
    assert "cut.hprof" in dumps.seen


def test_no_daemon_is_named(tmp_path: Path, endpoint: str) -> None:
    assert "none runs here" in examine(tmp_path, endpoint)["daemon"].seen


def test_credentials_that_cannot_be_had_are_named(tmp_path: Path, endpoint: str) -> None:
    def none() -> Credentials:
        raise Refused("the SDK found no credentials", hint="set AWS_ACCESS_KEY_ID")

    assert examine(tmp_path, endpoint, credentials=none)["credentials"].result is Result.FAILED
    soon = examine(tmp_path, endpoint, credentials=lambda: Credentials("env", 60.0))["credentials"]
    assert soon.result is Result.WARNING


def test_a_store_without_the_storage_class_or_digests_is_told(tmp_path: Path, endpoint: str) -> None:
    found = examine(tmp_path, endpoint, profile=lambda: (False, "none"))
    assert (found["storage class"].result, found["digest"].result) == (Result.WARNING, Result.WARNING)


def test_the_canary_is_a_whole_dump(tmp_path: Path) -> None:
    from dumpagent.model import State
    from dumpagent.upload.judge import CompletenessJudge
    from dumpagent.upload.scan import scan

    (tmp_path / "canary.hprof").write_bytes(canary(int(time.time() * 1000)))
    (dump,) = scan(str(tmp_path)).dumps
    assert CompletenessJudge(quiet_s=0).judge(dump).state is State.COMPLETE
