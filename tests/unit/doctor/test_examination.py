"""Whatever keeps a dump from the store, the doctor names it and says what to do."""

from __future__ import annotations

import datetime as dt
import email.utils
import os
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dumpagent.doctor.canary import canary
from dumpagent.doctor.examination import Doctor
from dumpagent.doctor.finding import Finding, Patient, Result
from dumpagent.dumps.model import Identity
from dumpagent.dumps.receipt import Receipt
from dumpagent.errors import Refused, Unreachable
from dumpagent.memory_watch.pods import PodSpec
from dumpagent.notify.api_server import Forbidden
from dumpagent.probes.heartbeat import Heartbeat
from dumpagent.settings import Place
from dumpagent.store.protocol import LookRefused
from dumpagent.store.s3.credentials import Credentials, find_credentials
from dumpagent.store.s3.profile import Digest, Profile
from dumpagent.units import GIB
from dumpagent.upload.ledger import Ledger
from tests.harness.hprof import Maker
from tests.harness.stores.certificates import Certificates, make_certificates
from tests.harness.stores.memory import MemoryStore


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
        "prefix": "dumps", "endpoint_url": endpoint, "ca_file": "", "storage_class": "STANDARD_IA", "quiet_s": 0.0,
    }  # fmt: skip
    now = more.pop("now", time.time)
    profile = more.pop("profile", lambda: Profile(storage_class=True, digest=Digest.CRC32))
    list_pods = more.pop("list_pods", None)
    doctor = Doctor(
        Patient(**settings | more), store or MemoryStore(), profile=profile, list_pods=list_pods, now=now, patience_s=patience_s,
        find_credentials=credentials or (lambda: Credentials("env", None)),
    )  # fmt: skip
    return {finding.name: finding for finding in doctor.examine()}


def test_with_all_well_the_canary_goes_the_whole_way_and_nothing_is_left(
    tmp_path: Path, endpoint: str
) -> None:
    store = MemoryStore()
    found = examine(tmp_path, endpoint, store)
    for name in ("volume", "volume writes", "space", "connection", "clock", "credentials", "bucket",
                 "put", "head", "get", "list", "abort", "delete", "storage class", "digest"):  # fmt: skip
        assert found[name].result is Result.OK, found[name]
    assert list(store.objects("")) == []
    assert store.open_uploads("") == []
    assert list((tmp_path / ".dumpagent").iterdir()) == []


def test_every_check_is_documented(tmp_path: Path, endpoint: str, tls: str) -> None:
    page = (Path(__file__).parents[3] / "docs/monitoring.md").read_text()
    _, _, section = page.partition("## `dumpagent doctor`\n")
    rows = re.findall(r"^\| ([a-z][^|]*) \|", section.partition("\n## ")[0], re.MULTILINE | re.IGNORECASE)
    documented = {name for row in rows for name in row.split(", ")} - {"Check"}
    found = examine(tmp_path, endpoint) | examine(tmp_path, "") | examine(tmp_path, tls)
    found |= examine(tmp_path, "http://no-such-host.invalid")
    assert found.keys() == documented


def test_what_fails_or_warns_always_says_what_to_do(tmp_path: Path, endpoint: str) -> None:
    (tmp_path / "cut.hprof").write_bytes(Maker().dump()[:-9])
    found = examine(
        tmp_path, endpoint, _Refusing(), profile=lambda: Profile(storage_class=False, digest=Digest.NONE)
    )
    for finding in found.values():
        assert finding.fix or finding.result in (Result.OK, Result.SKIPPED), finding


def _pod(*, memory: str) -> PodSpec:
    spec = {
        "name": "app",
        "env": [{"name": "JAVA_TOOL_OPTIONS", "value": "-Xmx1g"}],
        "resources": {"limits": {"memory": memory}},
    }
    return PodSpec("u", "shop", "orders-1", True, (spec,))


def test_a_container_that_the_kernel_will_kill_before_a_dump_is_named(tmp_path: Path, endpoint: str) -> None:
    found = examine(tmp_path, endpoint, list_pods=lambda: {"u": _pod(memory="1Gi")})["memory"]
    assert found.result is Result.WARNING
    assert "container app of shop/orders-1: limit 1024 MiB, heap at most 1024 MiB (-Xmx1g)" in found.seen
    assert found.fix == "raise the limit to 1152 MiB, or lower the heap"


def test_a_heap_that_fits_below_its_limit_is_well(tmp_path: Path, endpoint: str) -> None:
    found = examine(tmp_path, endpoint, list_pods=lambda: {"u": _pod(memory="1200Mi")})["memory"]
    assert (found.result, found.seen) == (
        Result.OK,
        "1 pods use the dump volume, and no known heap is too large",
    )


def test_without_the_right_to_list_pods_nothing_is_claimed_of_their_memory(
    tmp_path: Path, endpoint: str
) -> None:
    """Unknown is not well; and it says where the answer can be had."""

    def refuse() -> dict[str, PodSpec]:
        raise Forbidden("the API server answered 403")

    for list_pods in (None, refuse):
        found = examine(tmp_path, endpoint, list_pods=list_pods)["memory"]
        assert found.result is Result.SKIPPED
        assert "memory-watch --once" in found.fix


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


@pytest.mark.parametrize("skew_s", [3600, -3600, 120])
def test_a_clock_that_is_off_is_named(tmp_path: Path, endpoint: str, skew_s: float) -> None:
    clock = examine(tmp_path, endpoint, now=lambda: time.time() + skew_s)["clock"]
    assert clock.result is Result.WARNING
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
    assert dumps.result is Result.FAILED
    assert "cut.hprof" in dumps.seen
    os.utime(tmp_path / "cut.hprof", (1.0, 1.0))
    assert examine(tmp_path, endpoint)["dumps"].result is Result.WARNING, (
        "nobody can do anything about it now"
    )


def test_no_daemon_is_named(tmp_path: Path, endpoint: str) -> None:
    assert "none runs here" in examine(tmp_path, endpoint)["daemon"].seen


def test_a_daemon_that_was_killed_is_named_though_its_last_word_is_fresh(
    tmp_path: Path, endpoint: str
) -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    beat = Heartbeat(str(tmp_path), "upload")
    beat.open()
    path = tmp_path / "upload.heartbeat"
    path.write_text(path.read_text().replace(f"pid {os.getpid()}", f"pid {gone.pid}"))
    daemon = examine(tmp_path, endpoint)["daemon"]
    assert daemon.result is Result.FAILED
    assert "killed" in daemon.seen
    assert "OOMKilled" in daemon.fix


class _Denying(MemoryStore):
    """A store that grants all but one call."""

    def __init__(self, call: str) -> None:
        super().__init__()
        self.call = call
        setattr(self, call, self._deny)

    def _deny(self, *_: object, **_more: object) -> Any:
        raise LookRefused(
            f"the store answered 403 AccessDenied to {self.call}", hint="give s3:PutObject, s3:GetObject"
        )


@pytest.mark.parametrize(
    ("call", "name", "right", "result"),
    [
        ("put", "put", "s3:PutObject", Result.FAILED),
        ("look", "head", "s3:GetObject", Result.FAILED),
        ("read", "get", "s3:GetObject", Result.FAILED),
        ("begin", "abort", "s3:AbortMultipartUpload", Result.FAILED),
        ("abort", "abort", "s3:AbortMultipartUpload", Result.FAILED),
        ("objects", "list", "s3:ListBucket", Result.WARNING),
        ("delete", "delete", "s3:DeleteObject", Result.WARNING),
    ],
)  # fmt: skip
def test_the_one_right_that_is_missing_is_named(
    tmp_path: Path, endpoint: str, call: str, name: str, right: str, result: Result
) -> None:
    found = examine(tmp_path, endpoint, _Denying(call))
    assert (found[name].result, found[name].fix) == (result, f"give these credentials {right}")
    others = {"put", "head", "get", "list", "abort", "delete"} - {name}
    assert all(found[each].result in (Result.OK, Result.SKIPPED) for each in others & found.keys())


def test_a_store_that_hangs_does_not_hang_the_doctor(tmp_path: Path, endpoint: str) -> None:
    class Hanging(MemoryStore):
        def check(self) -> None:
            time.sleep(60)

    bucket = examine(tmp_path, endpoint, Hanging(), patience_s=1.0)["bucket"]
    assert (bucket.result, bucket.seen) == (Result.FAILED, "no answer within 1 s")
    assert "health" in bucket.fix


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(params=["127.0.0.1"])
def tls(request: pytest.FixtureRequest, certificates: Certificates) -> Iterator[str]:
    """A server at the address that the test names, whose certificate is for 127.0.0.1."""
    server = HTTPServer((request.param, 0), type("Handler", (_Store,), {}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.certificate, certificates.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"https://{request.param}:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_certificate_that_can_be_trusted_is_fine(
    tmp_path: Path, tls: str, certificates: Certificates
) -> None:
    assert examine(tmp_path, tls, ca_file=str(certificates.ca))["TLS"].result is Result.OK


def test_a_private_ca_that_is_not_trusted_is_named(tmp_path: Path, tls: str) -> None:
    found = examine(tmp_path, tls)
    assert found["TLS"].result is Result.FAILED
    assert "private CA" in found["TLS"].fix
    assert "AWS_CA_BUNDLE" in found["TLS"].fix
    assert found["bucket"].result is Result.SKIPPED


@pytest.mark.parametrize("tls", ["127.0.0.2"], indirect=True)
def test_a_certificate_of_another_host_is_named(tmp_path: Path, tls: str, certificates: Certificates) -> None:
    other = examine(tmp_path, tls, ca_file=str(certificates.ca))["TLS"]
    assert other.result is Result.FAILED
    assert "another host's" in other.fix
    assert "127.0.0.2" in other.fix


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, tls: str, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    found = examine(tmp_path, tls, ca_file=str(path))["TLS"]
    assert found.result is Result.FAILED
    assert str(path) in found.seen
    assert "AWS_CA_BUNDLE" in found.fix


def test_a_session_token_whose_end_nobody_knows_is_told(tmp_path: Path, endpoint: str) -> None:
    token = examine(tmp_path, endpoint, credentials=lambda: Credentials("env", None, temporary=True))
    assert token["credentials"].result is Result.WARNING
    assert "never renewed" in token["credentials"].fix


def test_keys_in_variables_that_have_ended_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "x")
    assert find_credentials().temporary
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", "2020-01-01T00:00:00Z")
    with pytest.raises(Refused, match="ended") as refused:
        find_credentials()
    assert "AWS_SESSION_TOKEN" in refused.value.hint
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=300)
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", soon.isoformat())
    assert 200 < (find_credentials().expires_in_s or 0) < 301


def test_credentials_that_cannot_be_had_are_named(tmp_path: Path, endpoint: str) -> None:
    def none() -> Credentials:
        raise Refused("the SDK found no credentials", hint="set AWS_ACCESS_KEY_ID")

    assert examine(tmp_path, endpoint, credentials=none)["credentials"].result is Result.FAILED
    soon = examine(tmp_path, endpoint, credentials=lambda: Credentials("env", 60.0))["credentials"]
    assert soon.result is Result.WARNING


def test_a_store_without_the_storage_class_or_digests_is_told(tmp_path: Path, endpoint: str) -> None:
    found = examine(tmp_path, endpoint, profile=lambda: Profile(storage_class=False, digest=Digest.NONE))
    assert (found["storage class"].result, found["digest"].result) == (Result.WARNING, Result.WARNING)


def test_the_canary_is_a_whole_dump(tmp_path: Path) -> None:
    from dumpagent.dumps.model import State
    from dumpagent.upload.volume.judge import CompletenessJudge
    from dumpagent.upload.volume.scan import scan

    (tmp_path / "canary.hprof").write_bytes(canary(int(time.time() * 1000), array_bytes=1000))
    (dump,) = scan(str(tmp_path)).dumps
    assert CompletenessJudge(quiet_s=0).judge(dump).state is State.COMPLETE
