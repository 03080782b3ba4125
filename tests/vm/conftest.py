"""One virtual machine for all tests of a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.vm.image import image, why_not
from tests.vm.machine import Machine


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine under SELinux enforcing with cgroup v2; what cannot be had is a failure here, not a skip."""
    if reason := why_not():
        pytest.fail(reason)
    folder = tmp_path_factory.mktemp("vm")
    with Machine(image(), folder, limit_s=5400) as machine:
        yield machine
    shutil.rmtree(folder, ignore_errors=True)
