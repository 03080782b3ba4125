"""What holds for every test: nothing is skipped silently, nothing is retried, and a flaky test has a date on which it must be mended."""

from __future__ import annotations

import datetime as dt
import os
from collections import Counter, defaultdict
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

from tests.harness import flaky
from tests.harness.environment import forget_own_settings

# A time limit for each example would fail on a busy machine; the whole test has one.
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")

forget_own_settings()
pytest_plugins = ["tests.harness.fixtures"]
_FLAKY = Path(__file__).parent / "flaky.txt"


def pytest_configure() -> None:
    """End the run in CI where a test is listed as flaky for longer than it may be."""
    late = flaky.over(flaky.parse(_FLAKY.read_text()), dt.datetime.now(tz=dt.UTC).date())
    if late and os.environ.get("CI"):
        raise pytest.UsageError(f"{_FLAKY}: {'; '.join(late)}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests of the list fail without failing the run."""
    listed = {entry.test: entry for entry in flaky.parse(_FLAKY.read_text())}
    for item in items:
        if entry := listed.get(item.nodeid):
            item.add_marker(
                pytest.mark.xfail(strict=False, reason=f"flaky until {entry.until}: {entry.reason}")
            )


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
    """Say which folder took which share of the time, and in one line what was not run, and why."""
    spent: dict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent["/".join(report.nodeid.split("/")[:2])] += report.duration
    if total := sum(spent.values()):
        largest = sorted(spent.items(), key=lambda share: -share[1])
        shares = ", ".join(f"{name} {100 * s / total:.0f} %" for name, s in largest if s > 0.01 * total)
        terminalreporter.write_line(f"Share of the tests' own time ({total:.0f} s): {shares}")
    why = Counter(
        str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        for report in terminalreporter.stats.get("skipped", [])
    )
    if why:
        reasons = "; ".join(f"{times} ({reason.removeprefix('Skipped: ')})" for reason, times in why.items())
        terminalreporter.write_line(f"Not run: {reasons}", yellow=True)
