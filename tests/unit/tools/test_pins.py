"""What pip installs for image, tests and tools is pinned with the SHA-256 of each file, and named without an index."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tools.lock import FOLDER, LOCKS
from tools.project import PROJECT

_PIN = re.compile(
    r"([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==([^ ;]+)(?: ; [^\\]+)?((?: --hash=sha256:[0-9a-f]{64})+)"
)
# Not written by `make lock`, since each has one wheel of one CPU: the hash was put in by hand.
_BY_HAND = {"jdks", "kubectl", "schemas", "stores"}
_NO_PIP = {"debian", "base-images"}


def _lines(path: Path) -> list[str]:
    """Give the requirements of a file, each on one line."""
    text = path.read_text().replace("\\\n", " ")
    return [
        re.sub(r" +", " ", line).strip() for line in text.splitlines() if line and not line.startswith("#")
    ]


def _pins(name: str) -> dict[str, str]:
    found = (_PIN.fullmatch(line) for line in _lines(FOLDER / f"{name}.txt"))
    return {match[1]: match[2] for match in found if match}


def test_each_list_is_written_by_make_lock_or_known_to_be_written_by_hand() -> None:
    assert {path.stem for path in FOLDER.glob("*.txt")} - _NO_PIP == {lock.name for lock in LOCKS} | _BY_HAND


@pytest.mark.parametrize("name", [lock.name for lock in LOCKS])
def test_each_package_has_one_version_and_the_hashes_of_its_files(name: str) -> None:
    lines = _lines(FOLDER / f"{name}.txt")
    assert lines
    assert [line for line in lines if not _PIN.fullmatch(line)] == []


@pytest.mark.parametrize(
    "line", ["boto3==1.44.5", "boto3>=1 --hash=sha256:" + "0" * 64, "boto3==1 --hash=md5:00"]
)
def test_a_line_without_version_or_hash_is_found(line: str) -> None:
    assert not _PIN.fullmatch(line)


def test_no_list_names_an_index() -> None:
    for path in FOLDER.iterdir():
        if path.stem not in _NO_PIP:
            assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", path.read_text()), (
                path
            )


@pytest.mark.parametrize("name", ["image", "image-analyze", "demo", "build"])
def test_the_image_has_the_versions_that_the_tests_had(name: str) -> None:
    tested = _pins("dev")
    assert {k: v for k, v in _pins(name).items() if tested.get(k, v) != v} == {}


def test_the_image_gets_all_that_the_wheel_asks_for() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    for name, wanted in (
        ("image", project["dependencies"]),
        ("image-analyze", [*project["dependencies"], *project["optional-dependencies"]["analyze"]]),
    ):
        names = {re.split(r"[><=\[ ]", each)[0] for each in wanted}
        assert names - set(_pins(name)) == set()
    assert "hatchling" in _pins("build")


@pytest.mark.parametrize("name", ["Makefile", "Containerfile"])
def test_pip_installs_nothing_without_hashes_but_the_project_itself(name: str) -> None:
    text = (PROJECT / name).read_text().replace("\\\n", " ")
    commands = re.findall(r"(?:-m pip|\$\(PIP_INSTALL\))[^&\n]*", text)
    installs = [each for each in commands if " install" in each or "PIP_INSTALL" in each or " wheel" in each]
    assert len(installs) >= 4
    for command in installs:
        ours = "--no-deps" in command and ("--editable ." in command or "/built/*.whl" in command or command.rstrip().endswith("."))  # fmt: skip
        assert "--require-hashes" in command or ours or command == "-m pip install --quiet", command
