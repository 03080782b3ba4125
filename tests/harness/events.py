"""Events for tests: what a test does not care about is filled in."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Any, TypeVar

from dumpagent.observe.events import Event

E = TypeVar("E", bound=Event)
_OF_TYPE: dict[str, Any] = {"int": 1, "float": 1.0, "bool": True, "str": "x"}


def an_event(kind: type[E], /, **values: object) -> E:
    """Give an event of `kind` with these values, and something in every other field that must have one."""
    filled: dict[str, Any] = {
        each.name: _OF_TYPE.get(str(each.type), ())
        for each in fields(kind)  # type: ignore[arg-type]
        if each.default is MISSING
    }
    return kind(**(filled | values))
