"""Rules for gates: what in an analysis makes a build or a check fail."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

from dumpagent.analyze.model import Analysis

_RULE = re.compile(
    r"(?P<what>[a-z-]+)(?::(?P<name>[^<>]+))?\s*>\s*(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>%|[KMGT]i?B|B)?"
)
_UNITS = {
    "": 1,
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_NAMED = {"instances", "bytes", "retained"}
_PLAIN = {"suspect", "heap", "unreachable", "loaders", "collection", "thread"}


class BadRule(ValueError):
    """This is no rule; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """`what` is compared with `amount`; of classes whose name matches `name`. `percent`: of the reachable heap."""

    text: str
    what: str
    name: str
    amount: float
    percent: bool

    def value(self, analysis: Analysis) -> float:
        """Give what the rule looks at."""
        heap = analysis.heap
        rows = [row for row in analysis.classes if fnmatch.fnmatchcase(row.name, self.name)]
        found: float = {
            "suspect": lambda: max((each.retained_bytes for each in analysis.suspects if _matches(each.holder, self.name)), default=0),
            "heap": lambda: heap.reachable_bytes,
            "unreachable": lambda: heap.unreachable_bytes,
            "loaders": lambda: max((each.loaders for each in analysis.classes_with_many_loaders), default=1),
            "collection": lambda: max((each.size for each in analysis.largest_collections), default=0),
            "thread": lambda: max((each.retained_bytes for each in analysis.threads), default=0),
            "instances": lambda: sum(row.instances for row in rows),
            "bytes": lambda: sum(row.shallow_bytes for row in rows),
            "retained": lambda: max((row.retained_bytes for row in rows), default=0),
        }[self.what]()  # fmt: skip
        return 100 * found / (heap.reachable_bytes or 1) if self.percent else found

    def matches(self, analysis: Analysis) -> bool:
        """Say whether the analysis fails by this rule."""
        return self.value(analysis) > self.amount


def _matches(text: str, pattern: str) -> bool:
    return not pattern or fnmatch.fnmatchcase(text, pattern) or fnmatch.fnmatchcase(text, f"*{pattern}*")


def read_rule(text: str) -> Rule:
    """Give the rule that `text` says, such as "suspect > 30%" or "instances:com.acme.Session > 1000". Raises BadRule."""
    found = _RULE.fullmatch(text.strip())
    if not found:
        raise BadRule(f'{text!r} is no rule; one is "suspect > 30%" or "instances:com.acme.Session > 1000"')
    what, name, unit = found["what"], (found["name"] or "").strip(), found["unit"] or ""
    if what not in _NAMED | _PLAIN:
        raise BadRule(f"{what!r} cannot be compared; {', '.join(sorted(_NAMED | _PLAIN))} can")
    if what in _NAMED and not name:
        raise BadRule(f'{what!r} wants a class: "{what}:com.acme.Session > ..."')
    if name and what not in _NAMED | {"suspect"}:
        raise BadRule(f"{what!r} takes no name")
    percent = unit == "%"
    if percent and what in ("instances", "loaders", "collection"):
        raise BadRule(f"{what!r} is a number of things, not a share of the heap")
    return Rule(text.strip(), what, name, float(found["amount"]) * (1 if percent else _UNITS[unit]), percent)
