"""The SBOM of an image: valid CycloneDX that names what pip installed and what the base holds."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tools.image_sbom import bom, release
from tools.project import PROJECT

_RHEL = {"ID": "rhel", "VERSION_ID": "9.6"}


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Give a folder as pip fills it: the agent, and one package with a licence."""
    for name, extra in (("dumpagent", ""), ("prometheus_client", "License-Expression: Apache-2.0\n")):
        folder = tmp_path / f"{name}-1.2.3.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.2.3\n{extra}\n")
    return tmp_path


def _made(library: Path, base: list[str] | None, kind: str, system: dict[str, str]) -> dict[str, Any]:
    text = JsonV1Dot6(bom(distributions(path=[str(library)]), base, kind, system)).output_as_string()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found: dict[str, Any] = json.loads(text)
    return found


def test_it_names_each_python_package_and_each_package_of_the_base(library: Path) -> None:
    lines = ["bash\t5.1.8-9.el9\tx86_64\t0", "openssl-libs\t3.2.2-6.el9\tx86_64\t1"]
    made = _made(library, lines, "rpm", _RHEL)
    assert {each["purl"] for each in made["components"]} == {
        "pkg:pypi/dumpagent@1.2.3",
        "pkg:pypi/prometheus-client@1.2.3",
        "pkg:rpm/redhat/bash@5.1.8-9.el9?arch=x86_64&distro=rhel-9.6",
        "pkg:rpm/redhat/openssl-libs@3.2.2-6.el9?arch=x86_64&distro=rhel-9.6&epoch=1",
    }
    assert made["metadata"]["component"]["name"] == "dumpagent"
    (licensed,) = (each for each in made["components"] if "licenses" in each)
    assert licensed["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert made["properties"] == [{"name": "dumpagent:base-packages", "value": "rpm, 2 packages"}]


def test_a_base_that_does_not_say_what_is_in_it_is_told_as_unknown(library: Path) -> None:
    made = _made(library, None, "generic", {})
    assert made["properties"][0]["value"].startswith("unknown")


def test_a_folder_without_the_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="name the folder that holds it"):
        bom(distributions(path=[str(tmp_path)]), [], "rpm", _RHEL)


def test_the_fields_of_os_release_lose_their_quotes() -> None:
    assert release('NAME="Red Hat"\nID="rhel"\n# x=y\nVERSION_ID=9.6\n') == {
        "NAME": "Red Hat",
        "ID": "rhel",
        "VERSION_ID": "9.6",
    }


def test_the_program_writes_it_for_this_machine(library: Path) -> None:
    """As the Containerfile runs it: a file by its path, outside the project."""
    target = library / "sbom.cdx.json"
    subprocess.run(
        [sys.executable, PROJECT / "tools" / "image_sbom.py", library, target], cwd="/", check=True
    )
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(target.read_text()) is None
