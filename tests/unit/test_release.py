"""What `make release` publishes: an sdist without strangers, and a statement that names each file's digest and commit."""

from __future__ import annotations

import pytest

from tools.release import statement, strangers


@pytest.mark.parametrize(
    "name",
    [
        "dumpagent-0.2.0/tests/unit/test_x.py",
        "dumpagent-0.2.0/.cache/pip",
        "dumpagent-0.2.0/dumpagent/__pycache__/x.pyc",
        "dumpagent-0.2.0/../etc/passwd",
        "dumpagent-0.2.0/id_rsa",
        "loose-file",
    ],
)
def test_what_does_not_belong_into_the_sdist_is_named(name: str) -> None:
    assert strangers(["dumpagent-0.2.0/dumpagent/check.py", name]) == [name]


def test_the_package_its_scripts_and_its_papers_belong_there() -> None:
    files = (
        "dumpagent/check.py",
        "scripts/dumpagent",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "PKG-INFO",
        "pyproject.toml",
    )
    assert strangers(f"dumpagent-0.2.0/{name}" for name in files) == []


def test_the_statement_names_each_files_digest_and_the_commit() -> None:
    made = statement({"a.whl": "ab12"}, commit="c0ffee", repository="somewhere")
    assert made["subject"] == [{"name": "a.whl", "digest": {"sha256": "ab12"}}]
    (source,) = made["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"] == {"gitCommit": "c0ffee"}
