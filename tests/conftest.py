"""What holds for every test: nothing is skipped silently."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator

import hypothesis
import pytest

from tests.harness.environment import forget_own_settings

# A time limit for each example would fail on a busy machine; the whole test has one.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")

forget_own_settings()
pytest_plugins = ["tests.harness.fixtures"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skip is a failure: a machine that cannot run a test has not passed it."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, which counts as failed: {report.longrepr}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was not run, and why."""
    why = Counter(
        str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
    )
    if why:
        reasons = "; ".join(f"{times} ({reason.removeprefix('Skipped: ')})" for reason, times in why.items())
        terminalreporter.write_line(f"Not run: {reasons}", yellow=True)
