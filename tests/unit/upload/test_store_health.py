"""When a store is told to be away, and when to be back."""

from __future__ import annotations

import pytest

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.observe.events import Event
from dumpagent.upload.store_health import StoreHealth
from tests.harness.stores.memory import MemoryStore


class Told:
    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, event: Event) -> None:
        self.names.append(type(event).__name__)


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def health(told: Told) -> StoreHealth:
    return StoreHealth(MemoryStore(), told, monotonic=lambda: 0.0)


def test_a_question_that_was_answered_without_asking_the_store_says_nothing_of_it(
    health: StoreHealth, told: Told
) -> None:
    """Nothing may be stored yet that could be asked about."""
    health.note(Unreachable("no answer"))
    assert health.ask(lambda: "nothing to ask") == "nothing to ask"
    assert "StoreRecovered" not in told.names


@pytest.mark.parametrize("error", [Refused("403 AccessDenied"), Refused("507 StorageFull")])
def test_a_store_that_refuses_dumps_is_not_well_because_it_answers_questions(
    health: StoreHealth, told: Told, error: DumpagentError
) -> None:
    health.failed(error, pending=1)
    health.ask(lambda: "an answer")
    assert "StoreRecovered" not in told.names


def test_one_trouble_is_told_once_whatever_the_store_was_asked(health: StoreHealth, told: Told) -> None:
    for question in ("listing uploads", "listing", "writing part 3 of a/b.hprof"):
        health.note(Unreachable(f"{question} in {MemoryStore().name}: the store answered 500 InternalError"))
    health.failed(Unreachable(f"listing in {MemoryStore().name}: connection refused"), pending=1)
    assert told.names.count("StoreFailed") == 2
