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
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = {
        "analyze": (
            {path for path in SOURCES if path.is_relative_to(ROOT / "dumpagent" / "analyze")},
            COME_WITH_NUMBA,
        ),
        "export": ({ROOT / "dumpagent" / "cli" / "commands" / "export.py"}, ()),
    }
    everywhere = set(SOURCES).difference(*(paths for paths, _ in extras.values()))

    def packages_of(paths: set[Path]) -> set[str]:
        names = set[str]().union(*(imported(path) for path in paths))
        return {normal(package) for name in names for package in of_name[name]}

    used = packages_of(everywhere)
    assert required(project["dependencies"]) == used - set(COME_WITH_BOTO3)
    assert set(extras) == set(project["optional-dependencies"])
    for name, (paths, come_with_it) in extras.items():
        assert required(project["optional-dependencies"][name]) == packages_of(paths) - used - set(
            come_with_it
        )
