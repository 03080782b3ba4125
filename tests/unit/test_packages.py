"""What pyproject.toml asks for is what the code imports, and boto3 makes the clients."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "dumpagent").rglob("*.py"))
COME_WITH_NUMBA = {"llvmlite": "numba"}
COME_WITH_BOTO3 = {"botocore": "boto3", "urllib3": "botocore"}  # its own parts: what it raises, and its pools


def normal(name: str) -> str:
    """Give the name of a package in its one form. Source: PyPA, "Name normalization"."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: list[str]) -> set[str]:
    """Give the names in requirements, without those of extras."""
    plain = [requirement for requirement in requirements if "extra ==" not in requirement]
    return {normal(re.split(r"[^A-Za-z0-9._-]", requirement)[0]) for requirement in plain}


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Give all nodes below `node` but those that only a type checker sees."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield child
        yield from running(child)


def imported(path: Path) -> set[str]:
    """Give the top-level names that a module imports, at any time, of packages that are not Python's own."""
    names = set[str]()
    for node in running(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).partition(".")[0])
    return names - sys.stdlib_module_names - {"dumpagent"}


def test_the_packages_asked_for_are_those_that_the_code_imports() -> None:
    of_name = importlib.metadata.packages_distributions()
    analysis = ROOT / "dumpagent" / "analyze"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = set[str]().union(*(imported(path) for path in SOURCES if not path.is_relative_to(analysis)))
    used = {normal(package) for name in names for package in of_name[name]}
    assert required(project["dependencies"]) == used - set(COME_WITH_BOTO3)
    names = set[str]().union(*(imported(path) for path in SOURCES if path.is_relative_to(analysis)))
    more = {normal(package) for name in names for package in of_name[name]} - used
    assert required(project["optional-dependencies"]["analyze"]) == more - set(COME_WITH_NUMBA)


def test_what_is_imported_without_being_asked_for_comes_with_boto3() -> None:
    for name, bringer in COME_WITH_BOTO3.items():
        assert name in required(importlib.metadata.requires(bringer) or [])


def test_what_the_analysis_imports_without_asking_for_it_comes_with_numba() -> None:
    for name, bringer in COME_WITH_NUMBA.items():
        assert name in required(importlib.metadata.requires(bringer) or [])


def test_boto3_makes_the_clients() -> None:
    assert [path.relative_to(ROOT).as_posix() for path in SOURCES if "boto3" in imported(path)] == [
        "dumpagent/store/s3/session.py"
    ]
    for path in SOURCES:  # botocore's own way past boto3
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Attribute) and node.attr == "create_client"), path
