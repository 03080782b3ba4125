"""The answer of the store probe fits its pipe and stays JSON, whatever the store says."""

from __future__ import annotations

import json

import pytest

from dumpagent.errors import Refused
from dumpagent.store.s3.probe import ask
from tests.harness.stores.memory import MemoryStore


@pytest.mark.parametrize(
    "text", ["Доступ запрещён " * 120, "\x00" * 5000, "x" * 9000, "\U0001f512" * 3000, ""]
)
def test_a_refusal_in_any_alphabet_is_told(text: str) -> None:
    """Six bytes of each such character did not fit: the JSON was cut, and the refusal told to nobody."""

    class Refusing(MemoryStore):
        def check(self) -> None:
            raise Refused(text, hint=text)

    answer = ask(Refusing())
    assert len(answer) <= 4096
    said = json.loads(answer)
    assert text.startswith(said["error"])
    assert bool(said["error"]) == bool(text)
