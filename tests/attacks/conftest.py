"""`held`: plays an attack on version 0.1.0, where it has to succeed, then on this version, where it must not."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

import pytest

from tests.attacks.stage import Stage
from tests.attacks.versions import OURS, Version, first_version
from tests.harness.stores.server import StoreServer

Attack = Callable[[Stage], str]
_TIMES = int(os.environ.get("TIMES", "1"))


class Hold(Protocol):
    """See `held`."""

    def __call__(
        self,
        attack: Attack,
        *,
        manager: bool = True,
        limited: bool = False,
        tries: int = 1,
        control: bool = True,
    ) -> None: ...


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Play each attack TIMES times; the control is played in the first round."""
    if "turn" in metafunc.fixturenames:
        metafunc.parametrize("turn", range(_TIMES))


@pytest.fixture(scope="session")
def first(tmp_path_factory: pytest.TempPathFactory) -> Version:
    """Version 0.1.0, for the controls."""
    return first_version(tmp_path_factory.mktemp("first-version"))


@pytest.fixture
def held(first: Version, moto: StoreServer, turn: int) -> Hold:
    """Give what asserts that an attack, which says what it got, gets something on 0.1.0 and nothing here.

    `tries`: how often the control may be played, where an attack is a race. `control`: false for what 0.1.0 held too; the
    attack has to assert then that its weapon works.
    """

    def hold(
        attack: Attack,
        *,
        manager: bool = True,
        limited: bool = False,
        tries: int = 1,
        control: bool = True,
    ) -> None:
        if turn == 0 and control:
            for _ in range(tries):
                with Stage(first, moto, manager=manager, limited=limited) as stage:
                    if attack(stage):
                        break
            else:
                pytest.fail("the control: the attack got nothing from version 0.1.0")
        with Stage(OURS, moto, manager=manager, limited=limited) as stage:
            got = attack(stage)
            assert not got, got
            assert not stage.unsound()

    return hold
