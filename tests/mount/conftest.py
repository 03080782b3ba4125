"""The simulated node, where this machine can have one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.container import Container
from tests.mount.node import Node


def _why_not(base: Path) -> str:
    try:
        with Container() as container:
            container.run("mount(base, base, MS_BIND)", base=str(base))
    except (OSError, RuntimeError) as error:
        return f"this machine cannot bind-mount in a namespace of its own: {error}"
    return ""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    if reason := _why_not(tmp_path):
        pytest.skip(reason)
    with Node(tmp_path) as simulated:
        yield simulated
