"""Writes the JSON schema of an analysis from the values it is made of.

python -m tools.analysis_schema           write dumpagent/analyze/report/analysis.schema.json
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from dumpagent.analyze import model

PATH = Path(__file__).parent.parent / "dumpagent" / "analyze" / "report" / "analysis.schema.json"
_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def schema() -> str:
    """Give the schema's text. Readers may meet more properties than it names: new ones do not change the version."""
    definitions: dict[str, Any] = {}
    _of(model.Analysis, definitions)
    root = definitions.pop("Analysis")
    root["properties"]["schema_version"] = {"const": model.SCHEMA_VERSION}
    title = f"Analysis of a Java heap dump, version {model.SCHEMA_VERSION}"
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return json.dumps({**head, **root, "$defs": definitions}, indent=2) + "\n"


def _of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_of(each, definitions) for each in typing.get_args(kind)]}
    if origin is tuple:
        return {"type": "array", "items": _of(typing.get_args(kind)[0], definitions)}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    definitions[kind.__name__] = {
        "description": " ".join((kind.__doc__ or "").split()),
        "type": "object",
        "properties": {name: _of(hints[name], definitions) for name in names},
        "required": names,
    }
    return {"$ref": f"#/$defs/{kind.__name__}"}


if __name__ == "__main__":
    PATH.write_text(schema())
