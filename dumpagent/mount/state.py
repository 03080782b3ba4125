"""What mount mode remembers between two events, what it sees and what it can do; values only."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from dumpagent.mount.backend import Proof
from dumpagent.mount.table import Shows, View
from dumpagent.observe.events import Event


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that the rules go by: `tick` between looks and write tests; the others are fixed."""

    tick_s: float
    longest_backoff_s: float = 30.0
    rescue_again_s: float = 1.0
    soon_s: float = 1.0


@dataclass(frozen=True, slots=True)
class BindPace:
    """How often the target may be bound: a burst at once, then `per_s` times a second."""

    burst: float = 100.0
    per_s: float = 10.0
    left: float = 100.0
    at: float = 0.0

    def take(self, now: float) -> tuple[BindPace, float]:
        """Give the pace after one more, and the seconds that are missing until it may be (0: now)."""
        left = min(self.burst, self.left + (now - self.at) * self.per_s)
        if left >= 1:
            return BindPace(self.burst, self.per_s, left - 1, now), 0.0
        return BindPace(self.burst, self.per_s, left, now), (1 - left) / self.per_s


@dataclass(frozen=True, slots=True)
class MountState:
    """What is known. `found` is what was told last of the target, None before anything was; times are monotonic.

    `proof` is None while nothing is known of the volume. `changes` counts what was mounted at the target (the kernel
    uses the ids of mounts again); `asked` is that count when the open write test began.
    """

    times: Times
    view: View | None = None
    found: Shows | None = None
    found_at: float = 0.0
    broken_at: float | None = None
    proof: Proof | None = None
    aside: bool = False
    strikes: int = 0
    failures: int = 0
    bad_proofs: int = 0
    changes: int = 0
    asked: int = 0
    beaten: str = ""
    pace: BindPace = BindPace()
    look_at: float = 0.0
    repair_at: float = 0.0
    prove_at: float = 0.0
    rescue_at: float = 0.0
    beat_at: float = 0.0

    @property
    def ready(self) -> bool:
        """Say whether the target shows the volume and writes through it are proven to reach it."""
        return self.found is Shows.THE_SOURCE and self.proof is not None and self.proof.ready


# -- what is seen ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """A wait ended; `table_changed`: the kernel says that what is mounted has changed."""

    table_changed: bool = False


@dataclass(frozen=True, slots=True)
class TableRead:
    """The mount table was read."""

    view: View


@dataclass(frozen=True, slots=True)
class TableNotRead:
    """The mount table could not be read, or contradicts itself."""

    error: str


@dataclass(frozen=True, slots=True)
class Proved:
    """A write test has ended after `seconds`, or is overdue."""

    proof: Proof
    seconds: float


@dataclass(frozen=True, slots=True)
class Bound:
    """The target shows the source after a mount."""

    view: View


@dataclass(frozen=True, slots=True)
class BindFailed:
    """The target could not be made to show the source."""

    error: str
    hint: str


@dataclass(frozen=True, slots=True)
class Cleared:
    """`layers` mounts were taken off the target."""

    layers: int


@dataclass(frozen=True, slots=True)
class ClearFailed:
    """What is mounted at the target could not be taken off."""

    error: str


class Child(enum.Enum):
    """The forked children that ask the volume."""

    WRITE_TEST = "write test"
    RESCUE = "rescue"


@dataclass(frozen=True, slots=True)
class Forked:
    """A child is at work."""

    child: Child


@dataclass(frozen=True, slots=True)
class ForkRefused:
    """No process could be had."""

    child: Child
    error: str


@dataclass(frozen=True, slots=True)
class RescueEnded:
    """A rescue has ended and left `waiting` files for later."""

    waiting: int


@dataclass(frozen=True, slots=True)
class TurnEnds:
    """Everything that has come was taken in; `testing` and `rescuing` say which children are at work."""

    testing: bool
    rescuing: bool


Happening = (
    WaitEnded | TableRead | TableNotRead | Proved | Bound | BindFailed | Cleared | ClearFailed | Forked
    | ForkRefused | RescueEnded | TurnEnds
)  # fmt: skip

# -- what is done ------------------------------------------------------------------------------------------------


class Do(enum.Enum):
    """Actions without a value; each but the last two gives something to see."""

    READ_TABLE = "read-table"
    BIND = "bind"
    CLEAR = "clear"
    START_RESCUE = "start-rescue"
    ABANDON_TEST = "abandon-test"
    ABANDON_RESCUE = "abandon-rescue"


@dataclass(frozen=True, slots=True)
class StartTest:
    """Have a write test made."""

    through_target: bool


@dataclass(frozen=True, slots=True)
class TellEvent:
    """Tell an event."""

    event: type[Event]
    fields: Mapping[str, object]


class Trouble(enum.Enum):
    """Lasting troubles, each told at once, seldom, and at its end."""

    REMOUNT = "remount"
    TABLE = "table"
    FORK = "fork"
    BACKEND = "backend"


@dataclass(frozen=True, slots=True)
class Failing:
    """A trouble goes on. `kind` tells those of a volume apart (a Backend's value) and is the child's name of FORK."""

    trouble: Trouble
    error: str
    kind: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Over:
    """A trouble, if it was, has ended; `silent` if it turned into another."""

    trouble: Trouble
    kind: str = ""
    silent: bool = False
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Beat:
    """Leave the verdict where the probes read it."""

    ready: bool
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the daemon: what it was told to mount cannot be used."""

    message: str
    hint: str


Action = Do | StartTest | TellEvent | Failing | Over | Beat | GiveUp
