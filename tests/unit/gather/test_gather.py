"""`dumpagent gather` as its user starts it: what is in the archive, and what never is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[3]
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMIK7MDENGbPxRfiCYzzzSECRET",
    "AWS_SESSION_TOKEN": "FwoGZXIvYXdzEXAMPLESESSIONTOKENzzz",
    "NOTIFY_URL": "https://hooks.example.com/services/T00/B00/XXXXXXXXXXXXXXXXXXXXXXXX",
}
FILE_KEY = "keyOfTheCredentialsFileabcdefghi1234"
WEB_TOKEN = "no-jwt-but-a-web-identity-token"
DUMP_TEXT = "the content of the heap"
NEVER = [*SECRETS.values(), "XXXXXXXXXXXXXXXXXXXXXXXX", FILE_KEY, WEB_TOKEN, DUMP_TEXT]


class _Metrics(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        said = f'dumpagent_up 1\ndumpagent_trouble{{why="{SECRETS["AWS_SECRET_ACCESS_KEY"]}"}} 1\n'
        self.wfile.write(f"{said}# {SECRETS['NOTIFY_URL']}\n".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metrics_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Metrics) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()


@pytest.fixture
def place(tmp_path: Path, metrics_port: int) -> dict[str, str]:
    """Give the environment of a node whose store is dead, with the secrets in every place that is gathered."""
    everything = " ".join(NEVER[:-1])
    root, run = tmp_path / "root", tmp_path / "run"
    for folder in ("receipts", "uploads", "profiles"):
        (root / ".dumpagent" / folder).mkdir(parents=True)
    (root / ".dumpagent/receipts/1-2-3.json").write_text(json.dumps({"path": "a.hprof", "note": everything}))
    (root / ".dumpagent/uploads/1-2-4.json").write_text(json.dumps({"upload_id": "u-1", "note": everything}))
    (root / "shop").mkdir()
    (root / "shop/java_pid1.hprof").write_text(DUMP_TEXT)
    (root / f"shop/{SECRETS['AWS_SECRET_ACCESS_KEY']}.hprof").write_text(DUMP_TEXT)
    (root / "shop/\x1b[31mred\udcff").write_text("")
    (root / "away").symlink_to("/etc")
    run.mkdir()
    (run / "verdict").write_text(f"ready {everything}")
    (tmp_path / "web-token").write_text(WEB_TOKEN)
    (tmp_path / "credentials").write_text(f"[default]\naws_secret_access_key = {FILE_KEY}\n")
    return {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "DUMP_ROOT": str(root), "RUNTIME_DIR": str(run),
        "S3_BUCKET": "dumps", "S3_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "web-token"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "METRICS_PORT": str(metrics_port), "POD_NAME": "uploader-0", "POD_NAMESPACE": "heap-dumps", **SECRETS,
    }  # fmt: skip


def gather(
    environ: Mapping[str, str], *words: str, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "dumpagent", "gather", *words],
        env={**environ, "PYTHONPATH": str(PROJECT)}, capture_output=True, check=False, cwd=cwd, timeout=150,
    )  # fmt: skip


def texts_in(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def test_the_archive_has_what_support_needs_and_no_secret(place: dict[str, str], tmp_path: Path) -> None:
    said = gather(place, "--output", f"{tmp_path}/out")
    assert said.returncode == 0, said.stderr
    files = texts_in(tmp_path / "out")
    assert set(files) == {
        "versions.json", "mountinfo.txt", "limits.txt", "runtime.txt", "config.txt", "metrics.txt", "healthz.txt",
        "readyz.txt", "log.txt", "state/receipts.txt", "state/uploads.txt", "state/listing.jsonl", "listing.jsonl",
        "doctor.jsonl", "errors.json",
    }  # fmt: skip
    everything = "\n".join([*files, *files.values(), said.stderr.decode(), said.stdout.decode()])
    assert [secret for secret in NEVER if secret in everything] == []
    assert "a.hprof" in files["state/receipts.txt"]
    assert "u-1" in files["state/uploads.txt"]
    assert "dumpagent_up 1" in files["metrics.txt"]
    assert "NOTIFY_URL" in files["config.txt"]
    assert "kubectl logs -n heap-dumps uploader-0" in files["log.txt"]
    findings = {line["name"]: line["result"] for line in map(json.loads, files["doctor.jsonl"].splitlines())}
    assert findings["connection"] == "failed"
    listed = {line["path"]: line for line in map(json.loads, files["listing.jsonl"].splitlines())}
    assert listed["shop/java_pid1.hprof"]["size_bytes"] == len(DUMP_TEXT)
    assert listed["away"]["mode"].startswith("l")
    assert "\x1b" not in everything
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "out").rglob("*") if p.is_file()} == {0o600}
    assert json.loads(files["errors.json"])["missing"] == []


def test_each_secret_would_be_found_if_it_were_not_hidden(place: dict[str, str]) -> None:
    """The test above cannot pass because a secret was never where gather looks."""
    receipt = Path(place["DUMP_ROOT"], ".dumpagent/receipts/1-2-3.json").read_text()
    assert [secret for secret in NEVER[:-1] if secret not in receipt] == []


def test_a_tar_is_closed_to_others_and_no_file_is_overwritten(place: dict[str, str], tmp_path: Path) -> None:
    place["S3_BUCKET"] = ""  # doctor cannot start; the rest is there
    output = tmp_path / "support.tar.gz"
    assert gather(place, "-o", str(output)).returncode == 0
    assert output.stat().st_mode & 0o777 == 0o600
    with tarfile.open(output) as tar:
        entries = tar.getmembers()
        folder = entries[0].name.split("/")[0]
        errors = tar.extractfile(f"{folder}/errors.json")
        assert errors is not None
        assert "S3_BUCKET is not set" in errors.read().decode()
    assert folder.startswith("dumpagent-gather-uploader-0-2")
    assert {entry.mode for entry in entries} == {0o600}
    before = output.read_bytes()
    again = gather(place, "-o", str(output))
    assert (again.returncode, output.read_bytes()) == (1, before)
    assert b"is there already, and is not overwritten" in again.stderr
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("")
    assert gather(place, "-o", str(full)).returncode == 1
    assert os.listdir(full) == ["mine"]


def test_standard_output_takes_the_archive_where_nothing_can_be_written(
    place: dict[str, str], tmp_path: Path
) -> None:
    place["S3_BUCKET"] = ""
    said = gather(place, "-o", "-")
    (tmp_path / "a.tar.gz").write_bytes(said.stdout)
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert any(name.endswith("/mountinfo.txt") for name in tar.getnames())


def test_settings_that_are_not_accepted_are_told_and_cost_nothing_else(
    place: dict[str, str], tmp_path: Path
) -> None:
    place |= {"METRICS_PORT": "many", "S3_BUCKET": ""}
    assert gather(place, "-o", f"{tmp_path}/out").returncode == 0
    files = texts_in(tmp_path / "out")
    assert "METRICS_PORT is 'many'" in files["errors.json"]
    assert "a.hprof" in files["state/receipts.txt"]


def test_a_missing_volume_costs_its_own_parts(place: dict[str, str], tmp_path: Path) -> None:
    place["DUMP_ROOT"] = f"{tmp_path}/nowhere"
    assert gather(place, "-o", f"{tmp_path}/out").returncode == 0
    files = texts_in(tmp_path / "out")
    assert "nowhere" in files["errors.json"]
    assert "dumpagent_up 1" in files["metrics.txt"]
    assert '"connection"' in files["doctor-store.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing_half(
    place: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "a.tar.gz"
    with subprocess.Popen(
        [sys.executable, "-m", "dumpagent", "gather", "-o", str(output)],
        env={**place, "PYTHONPATH": str(PROJECT)}, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        while not output.exists():
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + number, said
    assert b"Traceback" not in said
    assert b"nothing was kept" in said
    assert not output.exists()


def test_must_gather_writes_its_version_and_hands_on_the_times(place: dict[str, str], tmp_path: Path) -> None:
    """What `oc adm must-gather` runs, with the program as it is installed."""
    launcher = tmp_path / "bin/dumpagent"
    launcher.parent.mkdir()
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -m dumpagent "$@"\n')
    launcher.chmod(0o755)
    out = tmp_path / "must-gather"
    out.mkdir()
    environ = {
        **place, "PATH": f"{launcher.parent}:{place['PATH']}", "PYTHONPATH": str(PROJECT),
        "MUST_GATHER_DIR": str(out), "S3_BUCKET": "",
    }  # fmt: skip
    run = [str(PROJECT / "scripts/gather")]
    said = subprocess.run(
        run, env={**environ, "MUST_GATHER_SINCE": "2h0m0s"}, capture_output=True, check=False
    )
    assert said.returncode == 0, said.stderr
    assert (out / "version").read_text().splitlines()[0] == "dumpagent"
    assert (out / "version").read_text().splitlines()[1][0].isdigit()
    assert "--since=7200s" in (out / "dumpagent/log.txt").read_text()
    wrong = subprocess.run(
        run, env={**environ, "MUST_GATHER_SINCE_TIME": "yesterday"}, capture_output=True, check=False
    )
    assert wrong.returncode == 1
    assert b"--since-time is 'yesterday'" in wrong.stderr
