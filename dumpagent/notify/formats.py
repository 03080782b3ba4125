"""How a webhook gets a message: for Slack and its like, Microsoft Teams, as plain JSON, or as a CloudEvent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from dumpagent.dumps.text import iso_time
from dumpagent.observe.log import printable
from dumpagent.store.protocol import Link

# Source: CloudEvents 1.0, HTTP Protocol Binding, "Structured Content Mode".
_CLOUD_EVENT = "application/cloudevents+json"


@dataclass(frozen=True, slots=True)
class Message:
    """One thing that a person is told; `name` is the same for the same thing, `facts` are for programs.

    `link` is a secret, made when the message is sent: nothing keeps it, and only the body of the request shows it.
    """

    name: str
    text: str
    facts: dict[str, Any]
    link: Link | None = None


def content_type_of(notify_format: str) -> str:
    """Give the Content-Type of a request's body."""
    return _CLOUD_EVENT if notify_format == "cloudevents" else "application/json"


def body_of(notify_format: str, batch: Sequence[Message], *, source: Sequence[str], now: float) -> bytes:
    """Give the body that tells all of `batch` (at least one); `source` names the agent: cluster, if it has a name, and node."""
    if notify_format == "json":
        whole = {"text": _text(batch), "events": [_event(message) for message in batch]}
        return json.dumps(whole).encode()
    if notify_format == "cloudevents":
        return _cloud_event(batch, source, now)
    if notify_format == "teams":
        return _card(batch)
    text = _text(batch)
    # Source: Slack, "Formatting text for app surfaces": these three are control characters.
    for character, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, written)
    return json.dumps({"text": text}).encode()


def _text(batch: Sequence[Message]) -> str:
    return "\n\n".join(_with_link(message) for message in batch)


def _with_link(message: Message) -> str:
    """Give the text with the link below it: the one thing in it that the net of secrets must not touch."""
    text = str(printable(message.text, lines=True))
    return f"{text}\n{_offer(message.link)}: {message.link.url}" if message.link else text


def _offer(link: Link) -> str:
    return f"download without credentials until {iso_time(link.until)}" + (
        " at most, as the agent's session ends before that or then" if link.at_most else ""
    )


def _event(message: Message) -> dict[str, Any]:
    event = printable({"id": message.name, **message.facts}, lines=True)
    assert isinstance(event, dict)  # noqa: S101 - what `printable` makes of one
    linked = {"link": message.link.url, "link_until": iso_time(message.link.until)} if message.link else {}
    return {**event, "text": _with_link(message), **linked}


def _cloud_event(batch: Sequence[Message], source: Sequence[str], now: float) -> bytes:
    """Give one CloudEvent; where several messages go as one, its type is dumpagent.several and its data their list.

    Source: CloudEvents 1.0, "Required Attributes": source with id is unique for each event.
    """
    first = batch[0]
    several = len(batch) > 1
    event = {
        "specversion": "1.0",
        "id": f"{first.name}-{len(batch)}" if several else first.name,
        "source": "/dumpagent/" + "/".join(quote(part, safe="") for part in source),
        "type": "dumpagent.several" if several else f"dumpagent.{first.facts.get('event', 'message')}",
        "time": iso_time(now),
        "datacontenttype": "application/json",
        "data": {"text": _text(batch), "events": [_event(message) for message in batch]}
        if several
        else _event(first),
    }
    if not several and first.facts.get("key"):
        event["subject"] = str(printable(str(first.facts["key"])))
    return json.dumps(event).encode()


def _card(batch: Sequence[Message]) -> bytes:
    """Give an Adaptive Card of lines. Runs of text are shown as they are, while a TextBlock would take _ and * for markup.

    Source: Microsoft Teams, "Create incoming webhooks with Workflows"; Adaptive Cards 1.4, "RichTextBlock", "TextRun".
    """
    lines: list[dict[str, Any]] = []
    for message in batch:
        fenced, begins = False, True
        for line in str(printable(message.text, lines=True)).split("\n"):
            if line == "```":
                fenced = not fenced
                continue
            run = {"type": "TextRun", "text": line} | ({"fontType": "Monospace"} if fenced else {})
            lines.append(
                {"type": "RichTextBlock", "inlines": [run], "spacing": "Medium" if begins else "Small"}
            )
            begins = False
        if message.link:
            opens = {"type": "Action.OpenUrl", "url": message.link.url}
            inlines = [{"type": "TextRun", "text": _offer(message.link), "selectAction": opens}]
            lines.append({"type": "RichTextBlock", "inlines": inlines, "spacing": "Small"})
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": lines,
    }
    attachment = {
        "contentType": "application/vnd.microsoft.card.adaptive",
        "contentUrl": None,
        "content": card,
    }
    return json.dumps({"type": "message", "attachments": [attachment]}).encode()
