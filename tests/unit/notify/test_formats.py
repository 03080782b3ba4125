"""Each kind of webhook gets a message in its own form, and what is in a name stays text."""

from __future__ import annotations

import json
from typing import Any

from dumpagent.notify.formats import Message, body_of, content_type_of

TEXT = "Heap dump of shop/_cart_ on worker-1\n    at com.acme.Cart.fill(Cart.java:42)\n```\ndumpagent get a*b*.hprof\n```"
ONE = Message("id-1", TEXT, {"event": "dump_stored", "key": "shop/a*b*.hprof", "size_bytes": 3})
TWO = Message("id-2", "The bucket dumps can be used again", {"event": "store_back", "node": "worker-1"})


def told(notify_format: str, *batch: Message) -> dict[str, Any]:
    got = body_of(notify_format, batch, source=["prod eu", "worker-1"], now=1_767_268_800.0)
    return dict(json.loads(got))


def test_teams_gets_a_card_whose_lines_are_shown_as_they_are() -> None:
    (attachment,) = told("teams", ONE, TWO)["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    body = attachment["content"]["body"]
    assert {block["type"] for block in body} == {"RichTextBlock"}, "a TextBlock would read * and _ as markup"
    runs = [block["inlines"][0] for block in body]
    assert [run["text"] for run in runs] == [
        "Heap dump of shop/_cart_ on worker-1",
        "    at com.acme.Cart.fill(Cart.java:42)",
        "dumpagent get a*b*.hprof",
        "The bucket dumps can be used again",
    ]
    assert [run.get("fontType") for run in runs] == [None, None, "Monospace", None]


def test_a_cloud_event_has_what_the_specification_requires() -> None:
    event = told("cloudevents", ONE)
    assert event["specversion"] == "1.0"
    assert (event["id"], event["type"], event["subject"]) == (
        "id-1",
        "dumpagent.dump_stored",
        "shop/a*b*.hprof",
    )
    assert event["source"] == "/dumpagent/prod%20eu/worker-1"
    assert event["time"] == "2026-01-01T12:00:00Z"
    assert event["data"]["size_bytes"] == 3
    assert content_type_of("cloudevents") == "application/cloudevents+json"
    assert content_type_of("slack") == "application/json"


def test_what_goes_as_one_message_is_one_cloud_event() -> None:
    event = told("cloudevents", ONE, TWO)
    assert event["type"] == "dumpagent.several"
    assert [each["id"] for each in event["data"]["events"]] == ["id-1", "id-2"]


def test_slack_shows_the_characters_that_steer_it() -> None:
    assert told("slack", Message("n", "<!channel> & co", {}))["text"] == "&lt;!channel&gt; &amp; co"
