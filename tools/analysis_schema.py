"""Writes the JSON schemas of an analysis, and of what grew between two dumps, from the values they are made of.

python -m tools.analysis_schema    write analysis.schema.json and growth.schema.json below dumpagent/analyze
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from dumpagent.analyze import model
from dumpagent.analyze.growth import model as growth_model

_ANALYZE = Path(__file__).parent.parent / "dumpagent" / "analyze"
PATH = _ANALYZE / "report" / "analysis.schema.json"
GROWTH_PATH = _ANALYZE / "growth" / "growth.schema.json"
_PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


def schema() -> str:
    """Give the text of an analysis's schema."""
    return _schema(model.Analysis, model.SCHEMA_VERSION, "Analysis of a Java heap dump")


def growth_schema() -> str:
    """Give the text of the schema of what grew."""
    return _schema(growth_model.Growth, growth_model.SCHEMA_VERSION, "What grew between two Java heap dumps")


def _schema(kind: type, version: int, subject: str) -> str:
    """Give a schema's text. Readers may meet more properties than it names: new ones do not change the version."""
    definitions: dict[str, Any] = {}
    _of(kind, definitions)
    root = definitions.pop(kind.__name__)
    root["properties"]["schema_version"] = {"const": version}
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{subject}, version {version}",
    }
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
    GROWTH_PATH.write_text(growth_schema())
