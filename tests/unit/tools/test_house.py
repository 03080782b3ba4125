"""The limits of the package's layout are held, and each of them can fail."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from tools import house

TODAY = dt.date(2026, 12, 1)


def _package(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def _printed(package: Path) -> list[str]:
    return [str(fault) for fault in house.faults(package)]


@pytest.mark.parametrize(
    ("folder", "modules", "fits"),
    [
        ("mount", 14, True),
        ("mount", 15, False),
        ("upload", 13, False),
        ("upload/transfer", 12, True),
        ("upload/transfer", 13, False),
        ("cli/commands", 40, True),
        ("cli", 15, False),
    ],
)
def test_a_folder_that_is_too_full_is_named(folder: str, modules: int, fits: bool, tmp_path: Path) -> None:
    _package(tmp_path, **{f"{folder.replace('/', '__')}__m{number}": "" for number in range(modules)})
    (tmp_path / folder / "__init__.py").touch()
    most = 12 if folder.startswith("upload") else 14
    assert _printed(tmp_path) == ([] if fits else [f"{folder}/: {modules} modules, at most {most}"])


def test_a_long_module_and_a_long_function_are_named(tmp_path: Path) -> None:
    just = "def just():\n" + "    x = 1\n" * 79
    over = "class A:\n    def over(self):\n" + "        x = 1\n" * 80
    _package(tmp_path, long=just + "\n" * 321, ok=just + "\n" * 320, mount__a=over)
    assert _printed(tmp_path) == [
        "long.py: 401 lines, at most 400",
        "mount/a.py over(): 81 lines, at most 80",
    ]


def test_a_class_name_that_means_two_things_is_named(tmp_path: Path) -> None:
    """A private class is the same word to its reader."""
    _package(
        tmp_path, a="class Pass: ...\n", mount__b="def f():\n    class _Pass: ...\n", c="class Other: ...\n"
    )
    assert _printed(tmp_path) == ["class Pass: means 2 things, in a.py, mount/b.py"]


def test_an_exception_ends_on_its_day() -> None:
    fault = house.Fault("a.py", "401 lines, at most 400")
    assert house.judged([fault], TODAY, {}) == (["a.py: 401 lines, at most 400"], [])
    assert house.judged([fault], TODAY, {"a.py": "2026-12-01"}) == ([], [f"{fault} (until 2026-12-01)"])
    assert house.judged([fault], TODAY, {"a.py": "2026-11-30"})[0] == [
        f"{fault} (its exception ended on 2026-11-30)"
    ]
    assert house.judged([], TODAY, {"a.py": "2026-12-01"}) == (
        [],
        ["a.py: no longer over a limit, remove its exception"],
    )


def test_the_limits_are_measured_on_the_package_itself() -> None:
    """A package that moves away is not within every limit."""
    assert sum(house.modules_per_folder(house.PACKAGE).values()) > 80
