"""A pod that is told to end lets the dumps on its volume be stored first, for a bounded time, and says so."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from dumpagent.kernel.flock import is_locked
from dumpagent.kernel.owned import BUSY, STATE
from tests.harness import children
from tests.harness.hprof import Maker
from tests.harness.stores.moto import Moto
from tests.harness.valve import Valve
from tests.integration.test_kill import agent, digests, wait_until

pytestmark = pytest.mark.slow

_DUMPS = 4


def _events(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def _names(log: Path) -> list[object]:
    return [event["event"] for event in _events(log)]


def _write_dumps(root: Path) -> None:
    root.mkdir()
    for number in range(_DUMPS):
        (root / f"shop_cart-{number}.hprof").write_bytes(Maker().dump())


def test_sigterm_waits_until_every_dump_is_stored(tmp_path: Path) -> None:
    """As when a node is drained: the store answers late, and nothing is left on the volume alone."""
    root, log = tmp_path / "dump", tmp_path / "log"
    _write_dumps(root)
    with Moto(tmp_path) as moto, Valve(moto.server, hold_after=0) as valve:
        moto.server.client().create_bucket(Bucket="dumps")
        uploader = agent(valve.server, "dumps", root, "--shutdown-wait", "60s", log=log)
        try:
            wait_until(lambda: _names(log).count("dump_found") == _DUMPS)
            wait_until(lambda: is_locked(f"{root}/{STATE}/{BUSY}"))
            uploader.send_signal(signal.SIGTERM)
            wait_until(lambda: "drain_began" in _names(log))
            assert uploader.poll() is None
            valve.release()
            assert uploader.wait(60) == 0
        finally:
            children.end(uploader)
        assert len(digests(moto.server, "dumps")) == _DUMPS
    assert not is_locked(f"{root}/{STATE}/{BUSY}")
    began, *_, ended, stopped = [
        e for e in _events(log) if str(e["event"]).startswith(("drain", "agent_st"))
    ][1:]
    assert (began["pending"], ended["event"], stopped["pending"]) == (_DUMPS, "drain_ended", 0)


def test_a_store_that_does_not_answer_delays_the_end_so_long_and_no_longer(tmp_path: Path) -> None:
    """What is left is told, stays on the volume, and is stored at the next start."""
    root, log = tmp_path / "dump", tmp_path / "log"
    _write_dumps(root)
    with Moto(tmp_path) as moto, Valve(moto.server, hold_after=0) as valve:
        moto.server.client().create_bucket(Bucket="dumps")
        uploader = agent(valve.server, "dumps", root, "--shutdown-wait", "2s", log=log)
        try:
            wait_until(lambda: _names(log).count("dump_found") == _DUMPS)
            uploader.send_signal(signal.SIGTERM)
            assert uploader.wait(15) == 0
        finally:
            children.end(uploader)
        (cut,) = (e for e in _events(log) if e["event"] == "drain_cut")
        assert cut["pending"] == _DUMPS
        assert 2 <= float(str(cut["seconds"])) < 10
        again = agent(moto.server, "dumps", root, "--once")
        assert again.wait(60) == 0
        assert len(digests(moto.server, "dumps")) == _DUMPS


@pytest.mark.parametrize("wait", ["0s", "60s"])
def test_nothing_to_store_ends_at_once(tmp_path: Path, wait: str) -> None:
    root, log = tmp_path / "dump", tmp_path / "log"
    root.mkdir()
    with Moto(tmp_path) as moto:
        moto.server.client().create_bucket(Bucket="dumps")
        uploader = agent(moto.server, "dumps", root, "--shutdown-wait", wait, log=log)
        try:
            wait_until(lambda: "agent_started" in _names(log))
            uploader.send_signal(signal.SIGTERM)
            assert uploader.wait(10) == 0
        finally:
            children.end(uploader)
