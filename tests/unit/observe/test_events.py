"""One list of events: nothing else is ever logged, nothing in it is dead, and each trouble is told seldom, with its end."""

from __future__ import annotations

import ast
import dataclasses
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

import pytest

from dumpagent import observe
from dumpagent.observe.events import Failure, Recovery
from dumpagent.observe.events.catalogue import CATALOGUE
from dumpagent.observe.events.dumps import DumpFound
from dumpagent.observe.events.mount import BackendFailure, BackendRecovered
from dumpagent.observe.incident import Incident
from dumpagent.observe.log import LEVELS, log_to
from dumpagent.settings import Logging
from dumpagent.upload.replica.told import OF_REPLICA
from tests.harness.events import an_event

SOURCE = Path(observe.__file__).parents[1]
EVENTS = SOURCE / "observe" / "events"
BY_CLASS = {kind.__name__: kind for kind in CATALOGUE.values()}
DOCS = SOURCE.parent / "docs"
_HOUR_S = 3600
# Troubles that nothing mends but a new start of the daemon, or that are over with the telling.
_WITHOUT_END = {
    "watch_unavailable", "watch_limited", "watch_overflowed", "mount_unshared",
    "storage_class_unknown", "store_unverifying", "store_unconditional", "store_clock_apart",
    "dump_request_failed",
}  # fmt: skip


def _sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(SOURCE.rglob("*.py")):
        yield path, ast.parse(path.read_text())


def _name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _troubles() -> set[tuple[type[Failure], type[Recovery]]]:
    """Give every pair of events that the code makes an incident of."""
    pairs: set[tuple[type[Failure], type[Recovery]]] = set()
    for _, tree in _sources():
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and "incident" in _name_of(call.func).lower():
                named = [BY_CLASS[_name_of(each)] for each in call.args if _name_of(each) in BY_CLASS]
                if len(named) == 2:
                    began, ended = named
                    assert issubclass(began, Failure)
                    assert issubclass(ended, Recovery)
                    pairs.add((began, ended))
    # The kinds of backend are one trouble each, made in a loop.
    bad = [kind for kind in CATALOGUE.values() if issubclass(kind, BackendFailure)]
    # The replica's are told in place of the first destination's.
    of_replica = {(OF_REPLICA[began], OF_REPLICA[ended]) for began, ended in pairs if began in OF_REPLICA}
    return pairs | of_replica | {(kind, BackendRecovered) for kind in bad}  # type: ignore[return-value]


TROUBLES = sorted(_troubles(), key=lambda pair: pair[0].name)


def test_each_event_of_the_replica_has_the_fields_of_the_one_in_whose_place_it_is_told() -> None:
    """It is made of them: a field more or less would end the step that tells it."""
    for first, of_replica in OF_REPLICA.items():
        assert set(get_type_hints(of_replica)) == set(get_type_hints(first))


def test_events_are_made_in_their_list_alone() -> None:
    """An event that is made elsewhere would be logged under a name that no page explains."""
    elsewhere = [
        f"{path.name}:{node.lineno}"
        for path, tree in _sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and EVENTS not in path.parents
        if any(keyword.arg == "level" for keyword in node.keywords)
    ]
    assert elsewhere == []


def test_every_event_of_the_list_can_happen() -> None:
    told = {
        node.id
        for path, tree in _sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and EVENTS not in path.parents and "metrics" not in path.parts
    }
    assert set(BY_CLASS) - told == set()


def test_an_event_is_a_frozen_dataclass_that_takes_its_own_fields_alone() -> None:
    """A field that is misspelt or left out fails where the event is made, not in a listener."""
    found = DumpFound(path="/mnt/dump/a.hprof", size_bytes=1)
    assert dataclasses.is_dataclass(found)
    assert found.fields() == {"path": "/mnt/dump/a.hprof", "size_bytes": 1}
    assert found.with_values(size_bytes=2) == DumpFound(path="/mnt/dump/a.hprof", size_bytes=2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.size_bytes = 3  # type: ignore[misc]
    for wrong in ({"path": "a"}, {"path": "a", "size_bytes": 1, "size": 1}):
        with pytest.raises(TypeError, match="size"):
            DumpFound(**wrong)


def test_names_are_one_word_in_lower_case_and_levels_are_known() -> None:
    for name, event in CATALOGUE.items():
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+", name)
        assert event.level in LEVELS
        assert event.meaning.endswith(".")
        assert event.__name__.lower() == name.replace("_", ""), "the class has the event's name"


def test_the_docs_show_every_event_and_no_other() -> None:
    shown = re.findall(r"^\| `([a-z_]+)` \| (\w+) \|", (DOCS / "events.md").read_text(), re.MULTILINE)
    assert shown == [(event.name, event.level) for event in CATALOGUE.values()]


def test_whatever_sounds_bad_has_an_end_or_is_known_to_have_none() -> None:
    """Who reads that something fails is told when it does no more."""
    lasting = {began.name for began, _ in TROUBLES}
    failing = {
        name
        for name, event in CATALOGUE.items()
        if re.search(r"_(failed|unwritable|unreadable|refused|full|limited|unavailable)$", name)
        and event.level != "debug"
    }
    assert failing - lasting <= _WITHOUT_END


@pytest.mark.parametrize(("began", "ended"), TROUBLES, ids=[began.name for began, _ in TROUBLES])
def test_a_trouble_is_told_at_once_then_seldom_and_its_end_once(
    began: type[Failure], ended: type[Recovery]
) -> None:
    """Every ten seconds for three hours: 18 lines and not 1080; then one that says how long it was."""
    stream, now = io.StringIO(), 0.0
    trouble = Incident(log_to(stream, Logging(log_format="json")), began, ended, monotonic=lambda: now)
    while now < 3 * _HOUR_S:
        trouble.failed("it", an_event(began, error="No space left on device", hint="make room"))
        now += 10
    assert trouble.ended_for("it", an_event(ended))
    assert not trouble.ended_for("it", an_event(ended))
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [began.name] * 18 + [ended.name]
    assert all(line["hint"] == "make room" for line in lines[:-1])
    assert "times" not in lines[0]
    assert (lines[1]["times"], lines[1]["seconds"]) == (61, 600)
    assert (lines[-1]["times"], lines[-1]["seconds"]) == (1080, 3 * _HOUR_S)
    assert LEVELS[began.level] >= LEVELS["warning"]
    assert ended.level == "info"


def test_the_troubles_are_found() -> None:
    """If the code makes them in another way, the test above must not pass for want of any."""
    names = {began.name for began, _ in TROUBLES}
    assert names >= {
        "store_failed", "upload_failed", "scan_failed", "claim_failed", "volume_full", "delete_failed", "state_unwritable",
        "other_agent_found", "heartbeat_failed", "notify_failed", "pod_event_failed", "remount_failed", "table_unreadable",
        "replica_failed", "replica_upload_failed", "child_refused", "rescue_failed", "backend_full", "backend_hung",
    }  # fmt: skip
