"""What an event is: something that happened, with typed fields. The events themselves lie in the modules beside this one.

An event's name in the log is its class's name in snake case (`DumpUploaded` is `dump_uploaded`), and its docstring says
in docs/events.md what it means. Names are past tense. Fields have the same names everywhere: path, key, size_bytes,
seconds, error, hint, reason, ...
"""

from __future__ import annotations

import re
from dataclasses import MISSING, FrozenInstanceError, dataclass, fields, replace
from typing import Any, ClassVar, Protocol, Self, dataclass_transform


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Event:
    """One thing that happened. Each subclass is a frozen dataclass whose fields are given by name.

    `level` is debug, info, warning or error; a class without one is a base of others. One generic `__init__` serves
    all of them: code generated for each of a hundred classes would take a tenth of a second at every start.
    """

    name: ClassVar[str]
    level: ClassVar[str]
    meaning: ClassVar[str]
    _needed: ClassVar[frozenset[str]]
    _defaults: ClassVar[dict[str, object]]

    def __init_subclass__(cls, *, level: str = "") -> None:
        dataclass(init=False, repr=False, eq=False, match_args=False)(cls)
        known = fields(cls)  # type: ignore[arg-type]
        cls._needed = frozenset(each.name for each in known if each.default is MISSING)
        cls._defaults = {each.name: each.default for each in known if each.default is not MISSING}
        if level:
            cls.name = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()
            cls.level, cls.meaning = level, " ".join((cls.__doc__ or "").split())

    def __init__(self, **values: object) -> None:
        if wrong := (self._needed - values.keys()) | (values.keys() - self._needed - self._defaults.keys()):
            raise TypeError(f"{type(self).__name__}: missing or unknown: {', '.join(sorted(wrong))}")
        self.__dict__.update(values)
        for name, default in self._defaults.items():
            self.__dict__.setdefault(name, default)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"{type(self).__name__}.{name} cannot be changed")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and vars(other) == vars(self)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"
        )

    def fields(self) -> dict[str, object]:
        """Give the fields by name, as the log shows them: in the order in which they were given, None where unset."""
        return dict(vars(self))

    def with_values(self, **values: Any) -> Self:
        """Give the same event with some fields changed."""
        return replace(self, **values)  # type: ignore[type-var]


class Failure(Event):
    """Something that can last: told at once, then seldom, with `times` and `seconds` since it began."""

    error: str
    hint: str | None = None
    times: int | None = None
    seconds: float | None = None


class Recovery(Event):
    """The end of a failure that lasted; `times` and `seconds` say how often and how long."""

    seconds: float = 0.0
    times: int = 0


class Tell(Protocol):
    """Tells everybody who listens that `event` happened. Never raises, never waits for a listener."""

    def __call__(self, event: Event, /) -> None: ...
