"""Libraries' own words: with a name in the log, once each, and never a line that no JSON reader takes."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from dumpagent.observe.libraries import hear_libraries
from tests.unit.upload.conftest import Told


@pytest.fixture
def told() -> Iterator[Told]:
    before, heard = list(logging.getLogger().handlers), Told()
    hear_libraries(heard)
    yield heard
    logging.captureWarnings(False)
    logging.getLogger().handlers[:] = before


def test_a_warning_is_told_once_however_often_it_comes(told: Told) -> None:
    for number in range(5):
        logging.getLogger("urllib3.connectionpool").warning("Connection pool is full: %s", number)
    logging.getLogger("urllib3.connectionpool").error("another\nthing")
    logging.getLogger("botocore").info("nothing to see")
    assert [(fields["library"], fields["reason"]) for fields in told.of("library_warned")] == [
        ("urllib3.connectionpool", "Connection pool is full: 0"),
        ("urllib3.connectionpool", "another thing"),
    ]


def test_a_warning_of_pythons_own_kind_is_one_too(told: Told) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("Python 3.11 is old", stacklevel=1)
    (warned,) = told.of("library_warned")
    assert "Python 3.11 is old" in str(warned["reason"])


def test_a_slip_in_a_librarys_message_ends_nothing(told: Told) -> None:
    root = logging.getLogger()
    pytests, root.handlers[:] = (
        list(root.handlers),
        [h for h in root.handlers if "dumpagent" in type(h).__module__],
    )
    try:
        logging.getLogger("botocore").warning("%d requests", "many")
    finally:
        root.handlers[:] = pytests
    assert told.of("library_warned")[0]["reason"] == "%d requests"


@pytest.mark.slow
def test_the_uploader_writes_json_whatever_libraries_say(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def hook(event, arguments):\n"
        "    if event == 'import' and arguments[0] == 'boto3':\n"
        "        import logging, warnings\n"
        "        logging.getLogger('boto3').warning('a library speaks')\n"
        "        warnings.warn('and warns')\n"
        "sys.addaudithook(hook)\n"
    )
    (tmp_path / "dump").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", "dumpagent", "upload", "--once"], capture_output=True, text=True, check=False,
        env={
            **os.environ, "PYTHONPATH": str(tmp_path), "DUMP_ROOT": str(tmp_path / "dump"), "S3_BUCKET": "b",
            "S3_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "ssssss",
            "LOG_FORMAT": "json",
        },
    )  # fmt: skip
    lines = [line for line in ended.stderr.splitlines() if not line.startswith(("dumpagent: ", "  hint: "))]
    said = [json.loads(line) for line in lines]
    said = [line for line in said if line["event"] == "library_warned"]
    assert [line["reason"] for line in said].count("a library speaks") == 1
    assert any("and warns" in line["reason"] for line in said)
