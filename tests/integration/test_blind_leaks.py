"""A sample of the leaks that were thought of after the rules were written; `make soak-leaks` has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.blind_leaks import named
from tests.harness.jvm import pinned_jdk
from tests.harness.leaks import BLIND_HOLDERS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.mark.parametrize("leak", ["classvalue", "skiplist", "tree", "future", "weakmap", "hook"])
@pytest.mark.parametrize(("version", "collector"), [("17.0.9.2", "Serial"), ("25.0.2.1", "G1")])
def test_the_holder_of_a_leak_that_no_rule_had_in_mind_is_named(
    version: str, collector: str, leak: str, tmp_path: Path
) -> None:
    by_analyze, by_summary = named(pinned_jdk(version), leak, collector, tmp_path)
    assert BLIND_HOLDERS[leak] in by_analyze
    assert BLIND_HOLDERS[leak] in by_summary
