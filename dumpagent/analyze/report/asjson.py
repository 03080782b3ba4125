"""An analysis as JSON: the schema is `analysis.schema.json` beside this module."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from dumpagent.analyze.model import Analysis


def as_json(analysis: Analysis) -> str:
    """Give the analysis as one JSON text; no surrogate and no control character stands in it as itself."""
    return json.dumps(as_values(analysis), ensure_ascii=True)


def as_values(analysis: Analysis) -> dict[str, Any]:
    """Give the analysis as plain values."""
    return dataclasses.asdict(analysis)
