"""Writes the SBOM of an image (CycloneDX 1.6): what pip installed, and the packages of the base. The Containerfile runs it.

    python3 tools/image_sbom.py LIBRARY TARGET

It runs inside the image that is built, with cyclonedx-python-lib on PYTHONPATH and nothing else of the project. A base
without rpm and dpkg-query cannot say what is in it: the SBOM then has a property that says so.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

_RPM = ("rpm", "-qa", "--qf", r"%{NAME}\t%{VERSION}-%{RELEASE}\t%{ARCH}\t%{EPOCHNUM}\n")
_DPKG = ("dpkg-query", "-W", "-f", r"${Package}\t${Version}\t${Architecture}\t0\n")
# Whose packages an os-release ID stands for. Source: purl-spec, types rpm and deb.
_NAMESPACES = {"rhel": "redhat"}


def release(text: str) -> dict[str, str]:
    """Give the fields of an os-release file. Source: os-release(5)."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name: value.strip("\"'") for name, _, value in pairs}


def python_component(found: Distribution) -> Component:
    """Give the component of an installed distribution."""
    name = found.metadata["Name"]
    licence = next(iter(found.metadata.get_all("License-Expression") or ()), None)
    purl = PackageURL("pypi", None, name.lower().replace("_", "-"), found.version)
    return Component(
        name=name,
        version=found.version,
        purl=purl,
        bom_ref=str(purl),
        licenses=[LicenseFactory().make_from_string(licence)] if licence else None,
    )


def base_component(line: str, kind: str, system: dict[str, str]) -> Component:
    """Give the component of a line of `rpm -qa` or `dpkg-query -W`; `kind` is rpm or deb."""
    name, version, architecture, epoch = line.split("\t")
    namespace = _NAMESPACES.get(system.get("ID", ""), system.get("ID"))
    qualifiers = {"arch": architecture, "distro": f"{system.get('ID', '')}-{system.get('VERSION_ID', '')}"}
    if epoch != "0":
        qualifiers["epoch"] = epoch
    purl = PackageURL(kind, namespace, name, version, qualifiers)
    return Component(name=name, version=version, purl=purl, bom_ref=str(purl))


def bom(python: Iterable[Distribution], base: Iterable[str] | None, kind: str, system: dict[str, str]) -> Bom:
    """Give the SBOM of an image; `base` is None where the base does not say what is in it."""
    own, others = None, []
    for found in python:
        component = python_component(found)
        if found.metadata["Name"] == "dumpagent":
            own = component
        else:
            others.append(component)
    if own is None:
        raise ValueError("dumpagent is not among what pip installed: name the folder that holds it")
    subject = Component(name="dumpagent", version=own.version, type=ComponentType.CONTAINER, bom_ref="image")
    made = Bom(components=[own, *others])
    made.metadata.component = subject
    packages = [] if base is None else [base_component(line, kind, system) for line in base]
    for component in packages:
        made.components.add(component)
    told = (
        f"{kind}, {len(packages)} packages"
        if packages
        else "unknown: the base has neither rpm nor dpkg-query"
    )
    made.properties.add(Property(name="dumpagent:base-packages", value=told))
    made.register_dependency(subject, [own, *packages])
    made.register_dependency(own, others)
    return made


def _base_packages() -> tuple[str, list[str] | None]:
    """Give the kind of the base's packages, and a line for each; None where no program can list them."""
    for kind, command in (("rpm", _RPM), ("deb", _DPKG)):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            lines = [line for line in done.stdout.splitlines() if not line.startswith("gpg-pubkey\t")]
            if lines:
                return kind, lines
    return "generic", None


def main() -> None:
    """Write the SBOM of this root file system, with the Python packages of one folder."""
    library, target = Path(sys.argv[1]), Path(sys.argv[2])
    system = Path("/etc/os-release")
    kind, lines = _base_packages()
    made = bom(
        distributions(path=[str(library)]),
        lines,
        kind,
        release(system.read_text() if system.exists() else ""),
    )
    if lines is None:
        print(
            "image_sbom: neither rpm nor dpkg-query lists packages: the SBOM lacks the base's",
            file=sys.stderr,
        )
    target.write_text(JsonV1Dot6(made).output_as_string(indent=1) + "\n")


if __name__ == "__main__":
    main()
