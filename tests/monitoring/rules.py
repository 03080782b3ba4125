"""The alerting rules as a Prometheus without an operator reads them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
RULES = REPOSITORY / "manifests" / "monitoring" / "prometheusrule.yaml"
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def rules() -> list[dict[str, Any]]:
    """Give the rules of the manifest."""
    (group,) = yaml.safe_load(RULES.read_text())["spec"]["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def write_rules(path: Path, *, faster: int = 1) -> Path:
    """Write a rule file of the manifest's rules to `path`, with every duration divided by `faster`."""
    made = [dict(rule) for rule in rules()]
    for rule in made:
        rule["expr"] = _faster(rule["expr"], faster)
        if "for" in rule:
            rule["for"] = _divided(rule["for"], faster)
    group = {"name": "dumpagent", "interval": f"{max(1, 60 // faster)}s", "rules": made}
    path.write_text(yaml.safe_dump({"groups": [group]}, width=1000))
    return path


def _divided(duration: str, faster: int) -> str:
    return f"{max(1000, int(duration[:-1]) * _SECONDS[duration[-1]] * 1000 // faster)}ms"


def _faster(expression: str, faster: int) -> str:
    expression = re.sub(r"\[(\d+[smh])\]", lambda found: f"[{_divided(found[1], faster)}]", expression)
    expression = re.sub(
        r"offset (\d+[smh])", lambda found: f"offset {_divided(found[1], faster)}", expression
    )
    # Minutes as a number are written "15 * 60" in the rules.
    return re.sub(r"(\d+) \* 60\b", lambda found: f"{int(found[1]) * 60 / faster:g}", expression)
