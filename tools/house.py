"""Prints how the package is laid out, and fails where it breaks the house's limits.

    python -m tools.house [FOLDER]

Modules per folder, lines per module and per function, class names that mean two things.
An exception stands in `EXCEPTIONS` with the date on which it ends.
"""

from __future__ import annotations

import ast
import datetime as dt
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "dumpagent"
MOST_MODULES = 14
MOST_MODULES_OF_UPLOAD = 12
FREE_FOLDER = "cli/commands"  # a file per command, nothing else
MOST_MODULE_LINES = 400
MOST_FUNCTION_LINES = 80

# A fault's place, as it is printed -> the last day on which it is no failure, as ISO date.
EXCEPTIONS: dict[str, str] = {
    "analyze/heap/edges.py _read()": "2026-12-08",  # one loop over all records: a call for each would cost a third
    "analyze/heap/scan.py _scan()": "2026-12-08",
}


@dataclass(frozen=True)
class Fault:
    """One broken limit: `place` names what is over it, `what` says by how much."""

    place: str
    what: str

    def __str__(self) -> str:
        return f"{self.place}: {self.what}"


def modules_per_folder(package: Path) -> dict[str, int]:
    """Give folder below `package` ("." for itself) -> modules directly in it; `__init__` does not count."""
    modules = (path for path in package.rglob("*.py") if path.name != "__init__.py")
    return dict(sorted(Counter(str(path.parent.relative_to(package)) for path in modules).items()))


def faults(package: Path) -> list[Fault]:
    """Give every broken limit of the package, sorted by place."""
    found = [*_folder_faults(package), *_homonyms(package)]
    for path in package.rglob("*.py"):
        found += _module_faults(str(path.relative_to(package)), path.read_text())
    return sorted(found, key=str)


def judged(found: list[Fault], today: dt.date, exceptions: dict[str, str]) -> tuple[list[str], list[str]]:
    """Give what fails, then what is excepted; an exception that has ended fails, and one that excepts nothing is named."""
    failing, excepted = [], []
    for fault in found:
        until = exceptions.get(fault.place)
        if until is None:
            failing.append(str(fault))
        elif today > dt.date.fromisoformat(until):
            failing.append(f"{fault} (its exception ended on {until})")
        else:
            excepted.append(f"{fault} (until {until})")
    places = {fault.place for fault in found}
    excepted += [
        f"{place}: no longer over a limit, remove its exception"
        for place in exceptions
        if place not in places
    ]
    return failing, excepted


def _folder_faults(package: Path) -> Iterator[Fault]:
    for folder, modules in modules_per_folder(package).items():
        most = MOST_MODULES_OF_UPLOAD if folder.split("/")[0] == "upload" else MOST_MODULES
        if folder != FREE_FOLDER and modules > most:
            yield Fault(f"{folder}/", f"{modules} modules, at most {most}")


def _homonyms(package: Path) -> Iterator[Fault]:
    where: dict[str, list[str]] = defaultdict(list)
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                where[node.name.lstrip("_")].append(str(path.relative_to(package)))
    for name, paths in where.items():
        if len(paths) > 1:
            yield Fault(f"class {name}", f"means {len(paths)} things, in {', '.join(paths)}")


def _module_faults(path: str, text: str) -> Iterator[Fault]:
    lines = text.count("\n")
    if lines > MOST_MODULE_LINES:
        yield Fault(path, f"{lines} lines, at most {MOST_MODULE_LINES}")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MOST_FUNCTION_LINES:
                yield Fault(f"{path} {node.name}()", f"{length} lines, at most {MOST_FUNCTION_LINES}")


def main() -> None:
    """Print the layout; exit 1 where a limit is broken."""
    package = Path(sys.argv[1]) if sys.argv[1:] else PACKAGE
    for folder, modules in modules_per_folder(package).items():
        print(f"{modules:4} modules in {package.name if folder == '.' else f'{package.name}/{folder}'}")
    failing, excepted = judged(faults(package), dt.datetime.now(tz=dt.UTC).date(), EXCEPTIONS)
    for line in excepted:
        print(f"excepted: {line}")
    if failing:
        sys.exit("\n".join(f"over a limit: {line}" for line in failing))


if __name__ == "__main__":
    main()
