"""Log lines: one JSON object a line for machines, columns for people, and no name that breaks either."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest

from dumpagent.observe.events.daemon import AgentStarted
from dumpagent.observe.events.dumps import DumpFound
from dumpagent.observe.events.store import StoreFailed
from dumpagent.observe.log import log_to
from dumpagent.settings import Logging
from tests.harness.events import an_event


def test_a_json_line_begins_with_time_level_and_event() -> None:
    stream = io.StringIO()
    log_to(stream, Logging(log_format="json"))(an_event(StoreFailed, error="away", seconds=0.12345))
    line = stream.getvalue()
    said = json.loads(line)
    assert list(said) == ["timestamp", "level", "event", "error", "store", "seconds"]
    assert (said["level"], said["event"], said["seconds"]) == ("error", "store_failed", 0.123)
    assert line.endswith("}\n")
    assert len(said["timestamp"]) == len("2026-01-01T00:00:00.000000Z")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_any_name_of_a_file_stays_on_one_printable_line(log_format: str) -> None:
    stream = io.StringIO()
    log_to(stream, Logging(log_format=log_format))(an_event(DumpFound, path="ä\udcff\n\x1b[31m"))
    assert stream.getvalue().count("\n") == 1
    assert "\\xff" in stream.getvalue()
    assert "\x1b[31m" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_lines_below_the_level_are_left_out(log_format: str) -> None:
    stream = io.StringIO()
    tell = log_to(stream, Logging(log_format=log_format, log_level="error"))
    tell(an_event(AgentStarted))
    assert stream.getvalue() == ""


def test_a_daemon_that_writes_json_does_not_carry_the_console_along() -> None:
    """It would double what an idle daemon holds in memory."""
    words = (
        "import sys, dumpagent.cli.commands.mount; print('structlog' in sys.modules, 'rich' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert said.stdout == "False False\n"
