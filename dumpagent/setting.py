"""One setting: its variable, unit, range and default, and how its text is read.

A settings class is a frozen dataclass whose fields are made by `setting(...)`; `dumpagent.cli.options` turns the
fields into command line options, so that a flag, its variable, its range and its help cannot drift apart.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from dumpagent.bandwidth import ACCEPTED, parse_bandwidth
from dumpagent.errors import BadSettings
from dumpagent.owner_pattern import GROUPS, BadPattern, compile_pattern

PLACEHOLDER = "REPLACE_ME"  # what the manifests hold where only the user knows the value
_T = TypeVar("_T")
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|s|m|h|d|)")
_SWITCH = dict.fromkeys(("true", "1", "yes", "on"), True)
_SWITCH |= dict.fromkeys(("false", "0", "no", "off"), False)
_SECONDS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Kind(enum.Enum):
    """How the text of a setting is read; the value is what its help calls it."""

    TEXT = "TEXT"
    DIRECTORY = "DIRECTORY"
    DURATION = "SECONDS"  # a number of seconds, or 500ms, 30s, 5m, 2h, 7d
    DAYS = "DAYS"
    COUNT = "NUMBER"
    PERCENT = "PERCENT"
    SWITCH = "BOOLEAN"
    CHOICE = "CHOICE"
    URL = "URL"
    BANDWIDTH = "RATE"
    OWNER_PATTERN = "REGEXP"


@dataclass(frozen=True)
class Setting:
    """What is true of one setting, whatever its value: `low` and `high` are inclusive, in the setting's unit."""

    env: str
    kind: Kind
    why: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()
    made: Callable[[str], Any] = str  # makes the value of a choice
    required: bool = False
    secret: bool = False  # its value is never shown
    may_be_empty: bool = False  # of a directory
    may_be_off: bool = False  # of a duration: "off" is 0

    @property
    def accepted(self) -> str:
        """Say in words which values are accepted."""
        if self.kind is Kind.CHOICE:
            return "one of " + ", ".join(self.choices)
        if self.kind is Kind.SWITCH:
            return "true or false"
        if self.kind is Kind.URL:
            return "http://host[:port] or https://host[:port]"
        if self.kind is Kind.BANDWIDTH:
            return ACCEPTED
        if self.kind is Kind.OWNER_PATTERN:
            return f"a regular expression with some of the groups {', '.join(sorted(GROUPS))}"
        if self.kind is Kind.DIRECTORY:
            return "an absolute path" + (" or nothing" if self.may_be_empty else "")
        if self.kind is Kind.TEXT:
            return "any text" + (", not empty" if self.required else "")
        unit = {
            Kind.DURATION: " seconds (30, or with a unit: 500ms, 30s, 5m, 2h, 7d)",
            Kind.PERCENT: " %",
            Kind.DAYS: " days",
        }.get(self.kind, "")
        off = "off, or " if self.may_be_off else ""
        return f"{off}{self.low:g} to {self.high:g}{unit}"

    def parse(self, text: str) -> Any:
        """Give the value that `text` stands for. Raises BadSettings naming the variable, the text and the range."""
        text = bare(text)
        refuse_placeholder(self.env, text)
        try:
            value = self._read(text)
        except BadPattern as error:
            raise self.refusal(text, f"; {error}") from None
        except ValueError:
            raise self.refusal(text) from None
        if self.low is not None and self.high is not None and not self.low <= value <= self.high:
            raise self.refusal(text)
        return value

    def refusal(self, text: str, why: str = "") -> BadSettings:
        """Build the error for a `text` that is not accepted; `why` is put behind what is."""
        return BadSettings(
            f"{self.env} is {'not shown here' if self.secret else repr(text)}; accepted: {self.accepted}{why}",
            hint=f"set the variable {self.env} or the flag {flag(self.env)}; `dumpagent COMMAND --help` shows all settings",
        )

    def _read(self, text: str) -> Any:
        if self.kind is Kind.DURATION:
            found = _DURATION.fullmatch("0" if self.may_be_off and text.lower() in ("off", "none") else text)
            if not found:
                raise ValueError(text)
            return float(found[1]) * _SECONDS[found[2]]
        if self.kind is Kind.SWITCH:
            return _SWITCH[text.lower()] if text.lower() in _SWITCH else _refuse(text)
        if self.kind is Kind.BANDWIDTH:
            return parse_bandwidth(text)
        if self.kind is Kind.OWNER_PATTERN and text:
            compile_pattern(text)
        if self.kind is Kind.COUNT:
            return int(text)
        if self.kind is Kind.DAYS:
            return float(text.removesuffix("d"))
        if self.kind is Kind.PERCENT:
            return float(text.removesuffix("%"))
        if self.kind is Kind.CHOICE:
            by_lower = {choice.lower(): choice for choice in self.choices}
            return self.made(by_lower[text.lower()]) if text.lower() in by_lower else _refuse(text)
        if self.kind is Kind.URL and text and not re.fullmatch(r"https?://[^/\s]+(/\S*)?", text):
            raise ValueError(text)
        if self.kind is Kind.DIRECTORY and not (self.may_be_empty and not text) and not text.startswith("/"):
            raise ValueError(text)
        if self.required and not text:
            raise ValueError(text)
        return text


def bare(text: str) -> str:
    """Give the text without the blanks, line breaks and quotes around it that a Secret or an env file leaves there."""
    text = text.strip().strip("\ufeff")
    while len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    return text


def _refuse(text: str) -> Any:
    raise ValueError(text)


def refuse_placeholder(env: str, text: str) -> None:
    """Raise BadSettings if `text` still has the placeholder of the manifests in it."""
    if PLACEHOLDER in text:
        raise BadSettings(
            f"{env} still has {PLACEHOLDER} in it, which stands for a value of yours",
            hint=f"put the real value of {env} into the ConfigMap, the Secret or the command line that sets it",
        )


def flag(env: str) -> str:
    """Give the command line flag that belongs to the variable `env`."""
    # The one flag that is a word of everyday, and must not claim a variable of that name.
    return "--timeout" if env == "WAIT_TIMEOUT" else "--" + env.lower().replace("_", "-")


def setting(default: _T, env: str, kind: Kind, why: str, **more: Any) -> _T:
    """Declare a field of a settings class; `default` is in the unit of `kind`."""
    told = Setting(env, kind, why, **more)
    return dataclasses.field(default=default, repr=not told.secret, metadata={"setting": told})


def declared(settings_class: type) -> dict[str, tuple[Setting, Any]]:
    """Give the settings of a settings class by field name, each with its default."""
    return {f.name: (f.metadata["setting"], f.default) for f in dataclasses.fields(settings_class)}
