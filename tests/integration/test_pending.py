"""`dumpagent analyze --pending` beside real stores: two jobs at once, one that is killed, one that is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

import dumpagent.analyze.report as report
from dumpagent.analyze.compile import small_dump
from tests.harness.stores.server import StoreServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
SCHEMA = json.loads((Path(report.__file__).parent / "analysis.schema.json").read_text())
DUMP = small_dump(8)


def job(server: StoreServer, bucket: str, *words: str, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **server.environment(bucket), **more}
    return subprocess.Popen(
        [sys.executable, "-m", "dumpagent", "analyze", "--pending", *words],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def said(running: subprocess.Popen[str], code: int = 0) -> str:
    _, text = running.communicate(timeout=300)
    assert running.returncode == code, text
    return text


def keys(server: StoreServer, bucket: str) -> list[str]:
    found = server.client().list_objects_v2(Bucket=bucket).get("Contents", [])
    return [stored["Key"] for stored in found if not stored["Key"].endswith(".dumpagent/trial")]


def put(server: StoreServer, bucket: str, *names: str, content: bytes = DUMP) -> None:
    for name in names:
        server.client().put_object(Bucket=bucket, Key=name, Body=content)


def wait_for_claim(server: StoreServer, bucket: str, running: subprocess.Popen[str]) -> None:
    until = time.monotonic() + 120
    while not any(key.endswith("!claim") for key in keys(server, bucket)):
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["moto", "swift", "rclone"])
def test_two_jobs_at_once_analyze_each_dump_and_tell_of_a_broken_one(
    name: str, request: pytest.FixtureRequest
) -> None:
    server: StoreServer = request.getfixturevalue(name)
    bucket = server.new_bucket()
    dumps = [f"shop/cart-{number}/java_pid1.hprof" for number in range(3)]
    put(server, bucket, *dumps)
    put(server, bucket, "a/broken.hprof", content=b"JAVA PROFILE 1.0.2\0" + bytes(12))
    texts = [said(each) for each in [job(server, bucket), job(server, bucket)]]
    analyzed = sum(text.count("analyzed: shop/") for text in texts)
    if server.quirks.conditional_put:
        assert analyzed == 3, texts
        assert sum(text.count("nothing to analyze: a/broken.hprof") for text in texts) == 1
    else:
        assert analyzed >= 3, texts
    beside = [f"{dump}{ending}" for dump in dumps for ending in (".analysis.html", ".analysis.json")]
    assert set(keys(server, bucket)) >= {*dumps, *beside}
    assert not [key for key in keys(server, bucket) if key.endswith("!claim")]
    values = json.loads(server.client().get_object(Bucket=bucket, Key=beside[1])["Body"].read())
    jsonschema.validate(values, SCHEMA)
    assert values["dump"]["name"] == dumps[0]
    assert "done: 0 analyzed, 1 without a heap" in said(job(server, bucket))
    listed = subprocess.run(
        [sys.executable, "-m", "dumpagent", "ls", "--all", "--json"],
        env={**os.environ, **server.environment(bucket)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ".analysis." not in listed.stdout
    assert "!" not in listed.stdout


def test_a_dump_whose_job_is_killed_is_taken_by_the_next_one_after_the_deadline(moto: StoreServer) -> None:
    bucket = moto.new_bucket()
    put(moto, bucket, "x.hprof")
    killed = job(moto, bucket, ANALYZE_DEADLINE="30")
    wait_for_claim(moto, bucket, killed)
    children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert "1 in work elsewhere" in said(job(moto, bucket))
    assert not [pid for pid in children if _is_alive(pid)], "the analysis ends with its job"
    time.sleep(30)  # then the claim has ended, and after the time that clocks may be apart it counts as such
    until = time.monotonic() + 200
    while "1 analyzed" not in (text := said(job(moto, bucket))):
        assert "1 in work elsewhere" in text
        assert time.monotonic() < until
        time.sleep(5)
    assert keys(moto, bucket) == ["x.hprof", "x.hprof.analysis.html", "x.hprof.analysis.json"]


def test_a_job_that_is_stopped_gives_its_claim_back(moto: StoreServer) -> None:
    bucket = moto.new_bucket()
    put(moto, bucket, "x.hprof", "y.hprof")
    stopped = job(moto, bucket)
    wait_for_claim(moto, bucket, stopped)
    stopped.send_signal(signal.SIGTERM)
    assert "2 left for the next run" in said(stopped, code=143)
    assert keys(moto, bucket) == ["x.hprof", "y.hprof"]


def test_what_does_not_fit_is_named_with_its_need_and_left(moto: StoreServer) -> None:
    bucket = moto.new_bucket()
    put(moto, bucket, "x.hprof")
    text = said(job(moto, bucket, "--memory", "200MiB"))
    assert "too large: x.hprof needs about 0.2 GiB of memory" in text
    assert "1 too large" in said(job(moto, bucket, "--memory", "200MiB"))
    assert "1 analyzed" in said(job(moto, bucket, "--memory", "2GiB"))


def _is_alive(pid: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
