"""What a check of the doctor answers, and what it is asked about."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from dumpagent.dumps.recognise import FileRules
from dumpagent.settings import Place


class Result(enum.Enum):
    """What came of a check."""

    OK = "ok"
    WARNING = "warning"  # works, and a person should know
    FAILED = "failed"
    SKIPPED = "skipped"  # cannot be known, since something before it failed


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what came of it, what was seen, and what to do."""

    name: str
    result: Result
    seen: str
    fix: str = ""

    def as_line(self) -> dict[str, object]:
        """Give the finding as JSON takes it."""
        return {"name": self.name, "result": self.result.value, "seen": self.seen, "fix": self.fix}

    @classmethod
    def from_line(cls, line: dict[str, object]) -> Finding:
        """Read what `as_line` gave."""
        return cls(str(line["name"]), Result(line["result"]), str(line["seen"]), str(line["fix"]))


@dataclass(frozen=True)
class Patient:
    """What is looked at."""

    root: str
    state_dir: str
    runtime_dir: str
    place: Place
    prefix: str
    endpoint_url: str  # empty: AWS
    ca_file: str  # whom TLS trusts
    storage_class: str
    quiet_s: float
    packed: bool = False  # dumps are compressed on their way
    rules: FileRules = field(default_factory=FileRules)
