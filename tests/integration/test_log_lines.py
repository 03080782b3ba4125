"""What `kubectl logs` shows of the real daemon: names of the list and nothing else, each trouble once, and its end."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dumpagent.observe.events.catalogue import CATALOGUE
from dumpagent.observe.log import LEVELS
from dumpagent.upload.ledger import Ledger
from tests.harness import children
from tests.harness.faults import Fault, FaultProxy, always
from tests.harness.hprof import Maker
from tests.harness.stores.server import StoreServer

pytestmark = [pytest.mark.slow]


def test_every_line_has_a_name_of_the_list_and_every_trouble_its_end(
    moto: StoreServer, tmp_path: Path
) -> None:
    root, log = tmp_path / "dump", tmp_path / "log"
    state = root / ".dumpagent"
    root.mkdir()
    other = Ledger(str(state), store="another agent's")
    other.load()
    other.lock()

    def lines() -> list[dict[str, Any]]:
        whole = log.read_bytes().rpartition(b"\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def names() -> list[str]:
        return [line["event"] for line in lines()]

    def until(happened: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < end, f"{what}\n{log.read_text()[-3000:]}"
            time.sleep(0.1)

    with FaultProxy(moto) as proxy:
        environment = {
            **os.environ, **proxy.server.environment(moto.new_bucket()), "DUMP_ROOT": str(root), "FILE_STABLE_TIME": "0",
            "RUNTIME_DIR": str(tmp_path / "run"), "WATCH_INTERVAL": "0.2", "STORE_CHECK_INTERVAL": "1",
            "LOG_LEVEL": "debug", "LOG_FORMAT": "json",
        }  # fmt: skip
        with log.open("wb") as out:
            daemon = children.start(
                [sys.executable, "-m", "dumpagent", "upload"], env=environment, stdout=out, stderr=out
            )
        try:
            until(lambda: "other_agent_found" in names(), "the other agent is told of")
            other.close()
            until(lambda: "other_agent_gone" in names(), "it is gone")
            (root / "a.hprof").write_bytes(Maker().dump())
            until(lambda: "dump_uploaded" in names(), "a dump is stored")
            proxy.plan = always(Fault.KEY_REVOKED)
            asked = len(proxy.log)
            (root / "b.hprof").write_bytes(Maker().dump(segments=2))
            until(lambda: len(proxy.log) - asked >= 5, "the store refuses again and again")
            proxy.plan = always(Fault.NONE)
            until(lambda: names().count("dump_uploaded") == 2, "the second is stored")
            until(lambda: names().count("dump_summarised") == 2, "both are summarised")
            until(lambda: names().count("scan_finished") >= 25, "many scans without news")
        finally:
            assert children.end(daemon) == 0
    for line in lines():
        event = CATALOGUE[line["event"]]
        assert line["level"] == event.level
    assert "Traceback" not in log.read_text()
    shown = [line["event"] for line in lines() if LEVELS[line["level"]] >= LEVELS["info"]]
    for once in (
        "agent_started", "other_agent_found", "other_agent_gone", "store_failed", "store_recovered", "agent_stopped",
    ):  # fmt: skip
        assert shown.count(once) == 1, shown
    per_dump = {"dump_found", "dump_claimed", "dump_uploaded", "dump_summarised"}
    assert sum(name in per_dump for name in shown) == 8
    # While the store is away a summary fails too, and recovers.
    assert len(shown) <= 8 + 6 + 2 + 4, f"a handful besides: {shown}"
