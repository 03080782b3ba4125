"""What holds for every test: nothing is skipped silently, and the real JVMs that tests run on."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Generator

import pytest

from tests.harness.jvm import PINNED, Jdk, any_jdk, pinned_jdk

# Programs that some tests need and a developer's machine may lack -> the Debian packages that have them.
DEBIAN_PACKAGES = {
    "javac": "openjdk-17-jdk-headless",
}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skipped, and told so, where one is not on PATH")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            if shutil.which(program) is None:
                pytest.skip(f"no {program} on PATH: apt-get install {DEBIAN_PACKAGES[program]}")


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


@pytest.fixture(scope="session", name="any_jdk")
def _any_jdk() -> Jdk:
    """A real JVM, whichever costs least to have."""
    return any_jdk()


@pytest.fixture(scope="session", params=PINNED)
def every_jdk(request: pytest.FixtureRequest) -> Jdk:
    """Each pinned JVM in turn, from 11 to 25."""
    return pinned_jdk(request.param)
