"""Tells a webhook of every stored dump and of a store that stays away, from a thread for which nobody waits.

What is to be told lies in an outbox on disk until the webhook has taken it: a restart loses and repeats nothing, but
for the moment between an answer and the removal of its file. The outbox is a cache: it may vanish at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dumpagent.errors import DumpagentError, Refused, Unreachable
from dumpagent.notify.formats import Message, body_of
from dumpagent.notify.message import Sender, dump_message
from dumpagent.observe.barrier import Barrier, repeat
from dumpagent.observe.events import Event, Tell
from dumpagent.observe.events.dumps import DumpAlreadyStored, DumpSummarised, DumpUploaded
from dumpagent.observe.events.memory import ContainerKilled
from dumpagent.observe.events.notify import NotifyFailed, NotifyRecovered
from dumpagent.observe.events.store import StoreAnswered, StoreFailed, StoreRecovered
from dumpagent.observe.incident import Incident
from dumpagent.observe.log import printable
from dumpagent.settings import Notifying
from dumpagent.store.protocol import Link

if TYPE_CHECKING:
    import ssl

_VERSION = 1
_MOST_WAITING = 500  # then the oldest go: a webhook that is away for weeks must not fill the volume
_BURST, _EVERY_S = 10, 30.0  # messages at once, then one per so long; what waits longer goes as one
_MOST_LINKS = 10  # in one message: a link of a session has 2,000 characters, and webhooks take some 30,000
_FIRST_RETRY_S, _LONGEST_RETRY_S = 2.0, 300.0
_TIMEOUT_S = 10.0

Save = Callable[
    [str, bytes], None
]  # makes the file of this path hold that, whole or not at all; raises OSError
MakeLink = Callable[[str], Link]  # to the object of this key; raises DumpagentError
Post = Callable[[bytes], None]  # raises Refused (the message is dropped) or Unreachable (it is tried again)


def trusting() -> ssl.SSLContext:
    """Give a TLS context that trusts the system's CAs, and those of each usual variable: the webhook may be a company's own."""
    import ssl

    context = ssl.create_default_context()
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE"):
        try:
            context.load_verify_locations(os.environ.get(name) or None)
        except (OSError, TypeError):
            continue  # not set, or no certificates: the system's will do
    return context


def webhook(url: str, content_type: str = "application/json") -> Post:
    """Give what posts to `url`. No error of it shows the URL, which is a secret where it is Slack's."""

    def post(body: bytes) -> None:
        import urllib.error
        import urllib.request

        class _NoRedirects(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_: Any) -> None:
                return None

        request = urllib.request.Request(url, body, {"Content-Type": content_type})  # noqa: S310 - http(s) by Kind.URL
        try:
            handlers: list[Any] = [_NoRedirects]
            if url.lower().startswith("https:"):
                handlers.append(urllib.request.HTTPSHandler(context=trusting()))
            urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            error.close()
            said = f"NOTIFY_URL answered {error.code}"
            if error.code >= 500 or error.code in (408, 429):
                raise Unreachable(said) from None
            raise Refused(said, hint="is the webhook still there, and does it take NOTIFY_FORMAT?") from None
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise Unreachable(
                f"NOTIFY_URL cannot be reached: {type(reason).__name__}: {getattr(reason, 'strerror', None) or 'no answer'}",
                hint="check NOTIFY_URL, DNS, HTTPS_PROXY and network policies; nothing else waits for it",
            ) from None
        except ValueError:  # http.client's errors show what they got
            raise Unreachable("NOTIFY_URL gave an answer that is not HTTP") from None

    return post


class Notifier:
    """Listens to events, and tells `post` what is worth a person's while. `turn` is one step of its thread."""

    def __init__(
        self,
        settings: Notifying,
        *,
        outbox: str,
        sender: Sender,
        tell: Tell,
        post: Post,
        save: Save,
        link: MakeLink | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._outbox, self._post, self._save = settings, outbox, post, save
        self._link = link
        self._sender, self._node, self._root = sender, sender.node, sender.root
        self._bucket = sender.address.bucket
        self._now, self._monotonic = now, monotonic
        self._incident = Incident(tell, NotifyFailed, NotifyRecovered, monotonic=monotonic)
        self._heard: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._store = _StoreAway()
        self._waiting: dict[str, Message] = {}
        self._number = 0  # of the last message: a restart tells them in this order
        self._loaded = False
        self._tokens, self._filled_at = float(_BURST), monotonic()
        self._not_before, self._failures = 0.0, 0

    def __call__(self, event: Event, /) -> None:
        """Take note of an event; costs a few microseconds."""
        if isinstance(event, _OF_INTEREST):
            self._heard.put(event)

    def start(
        self, stopped: Callable[[], bool], *, owned: threading.Event, barrier: Barrier
    ) -> threading.Thread:
        """Tell in a thread of its own until `stopped()`.

        The outbox is read once the state directory is `owned`: until then it is another agent's.
        """

        def step() -> None:
            if not self._loaded:
                if not owned.wait(1.0):
                    return
                self.load()
            self.turn(wait_s=1.0)

        return repeat("notify", step, stopped=stopped, barrier=barrier)

    def load(self) -> None:
        """Read what an earlier run could not tell any more, in the order in which it happened."""
        self._loaded = True
        found: list[tuple[int, Message]] = []
        try:
            os.makedirs(self._outbox, mode=0o700, exist_ok=True)
            names = os.listdir(self._outbox)
        except OSError:
            return
        for name in names:
            try:
                with open(f"{self._outbox}/{name}", encoding="utf-8") as file:
                    values = dict(json.loads(file.read(1 << 16)))
                if values.pop("version") != _VERSION:
                    continue
                if name == _StoreAway.NAME:
                    self._store = _StoreAway(values["since"], bool(values["told"]), str(values["error"]))
                else:
                    message = Message(str(values["name"]), str(values["text"]), dict(values["facts"]))
                    found.append((int(values.get("number", 0)), message))
            except (OSError, ValueError, KeyError, TypeError):
                continue
        for number, message in sorted(found, key=lambda each: each[0]):
            self._waiting.setdefault(message.name, message)
            self._number = max(self._number, number)

    def turn(self, *, wait_s: float = 0.0) -> None:
        """Hear what has come, waiting up to `wait_s` for it, and tell what is due."""
        try:
            self._take(self._heard.get(timeout=wait_s) if wait_s else self._heard.get_nowait())
            while True:
                self._take(self._heard.get_nowait())
        except queue.Empty:
            pass
        self._look_at_store()
        while self._waiting and self._may_send():
            self._send()

    # -- what is worth telling ----------------------------------------------------------------------------------

    def _take(self, event: Event) -> None:
        if isinstance(event, ContainerKilled):
            self._put(self._of_kill(event))
            return
        if isinstance(event, DumpUploaded):
            self._put(self._of_dump(event))
        if isinstance(event, DumpSummarised):
            self._put(self._of_summary(event))
            return
        if isinstance(event, StoreFailed):
            if self._store.since is None:
                self._store = _StoreAway(self._now(), False, event.error)
                self._keep_store()
        elif self._store.since is not None:
            if self._store.told:
                self._put(
                    self._of_store(f"can be used again from {self._node}; waiting dumps follow", "back")
                )
            self._store = _StoreAway()
            self._keep_store()

    def _look_at_store(self) -> None:
        away = self._store
        if away.since is not None and not away.told:
            away_s = self._now() - away.since
            if not 0 <= away_s < self._settings.notify_store_after_s:  # below 0: the clock was set back
                self._store = _StoreAway(away.since, True, away.error)
                self._put(
                    self._of_store(
                        f"cannot be used from {self._node} for {max(0.0, away_s) / 60:.0f} min now; dumps wait on the volume: {away.error}",
                        "away",
                    )
                )
                self._keep_store()

    def _of_store(self, text: str, what: str) -> Message:
        since = self._store.since or self._now()
        facts = {"event": f"store_{what}", "node": self._node, "bucket": self._bucket, "since": since}
        return Message(_name(what, since), f"The bucket {self._bucket} {text}", facts)

    def _of_dump(self, dump: DumpUploaded) -> Message:
        text, facts = dump_message(dump, self._sender)
        return Message(_name("dump", dump.key, dump.crc32), text, facts)

    def _of_kill(self, kill: ContainerKilled) -> Message:
        pod = f"{kill.namespace}/{kill.pod}" if kill.pod else f"pod {kill.uid}"
        text = f"Killed for its memory without a heap dump: {pod} on {self._node}\n{kill.reason}\n{kill.hint}"
        facts = {**kill.fields(), "event": "container_killed", "node": self._node}
        return Message(_name("killed", kill.uid, self._now()), text, facts)

    def _of_summary(self, dump: DumpSummarised) -> Message:
        dump = dump.with_values(**{name: printable(value) for name, value in dump.fields().items()})
        path = dump.path.removeprefix(self._root + "/")
        application = path.rpartition("/")[0] or path
        text = (
            f"What the heap dump of {application} on {self._node}, {dump.dump_time or 'time unknown'}, shows:"
        )
        text += "".join(f"\n    {line}" for line in dump.lines)
        facts = {
            "event": "dump_summarised", "application": application, "node": self._node, "path": path, "key": dump.key,
            "bucket": self._bucket, "report": dump.report, "lines": list(dump.lines), "verdict": dump.verdict,
            "dump_time": dump.dump_time,
        }  # fmt: skip
        return Message(_name("summary", dump.key, dump.crc32), text, facts)

    # -- the outbox ---------------------------------------------------------------------------------------------

    def _put(self, message: Message) -> None:
        self._waiting[message.name] = message
        self._number += 1
        while len(self._waiting) > _MOST_WAITING:
            self._remove(next(iter(self._waiting)))
        self._write(
            message.name,
            {
                "number": self._number,
                "name": message.name,
                "text": message.text,
                "facts": printable(message.facts),
            },
        )

    def _keep_store(self) -> None:
        if self._store.since is None:
            self._unlink(_StoreAway.NAME)
        else:
            away = self._store
            self._write(_StoreAway.NAME, {"since": away.since, "told": away.told, "error": away.error})

    def _write(self, name: str, values: dict[str, Any]) -> None:
        try:
            os.makedirs(self._outbox, mode=0o700, exist_ok=True)
            content = json.dumps({"version": _VERSION, **values}).encode("utf-8", "backslashreplace")
            self._save(f"{self._outbox}/{name}", content)
        except OSError:
            pass  # memory remembers it until the end of this process

    def _remove(self, name: str) -> None:
        del self._waiting[name]
        self._unlink(name)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(f"{self._outbox}/{name}")
        except OSError:
            pass

    # -- sending ------------------------------------------------------------------------------------------------

    def _may_send(self) -> bool:
        now = self._monotonic()
        self._tokens = min(_BURST, self._tokens + (now - self._filled_at) / _EVERY_S)
        self._filled_at = now
        return now >= self._not_before and self._tokens >= 1

    def _send(self) -> None:
        batch = list(self._waiting.values())
        # The last token carries all that still waits: a crash loop is one message, not a hundred.
        batch = batch if self._tokens < 2 and len(batch) > 1 else batch[:1]
        try:
            self._post(self._body(batch))
        except Unreachable as error:
            self._failed(error)
            self._not_before = self._monotonic() + min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2**self._failures)
            self._failures += 1
            return
        except DumpagentError as error:
            self._failed(error)  # the same message cannot help: it goes, and the log has said why
        else:
            self._incident.ended_for("webhook", NotifyRecovered())
        self._failures = 0
        self._tokens -= 1
        for message in batch:
            self._remove(message.name)

    def _failed(self, error: DumpagentError) -> None:
        self._incident.failed(
            "webhook", NotifyFailed(error=str(error), hint=error.hint or None, waiting=len(self._waiting))
        )

    def _body(self, batch: list[Message]) -> bytes:
        source = [part for part in (self._sender.cluster, self._sender.node) if part]
        linked = batch[:-_MOST_LINKS] + [self._with_link(message) for message in batch[-_MOST_LINKS:]]
        return body_of(self._settings.notify_format, linked, source=source, now=self._now())

    def _with_link(self, message: Message) -> Message:
        """Give the message with a link to its dump, made now: the outbox on the volume never holds one."""
        key = message.facts.get("key")
        if self._link is None or message.facts.get("event") != "dump_stored" or not key:
            return message
        try:
            return replace(message, link=self._link(str(key)))
        except DumpagentError as error:
            return replace(message, text=f"{message.text}\nno link could be made: {error}")


@dataclass(frozen=True, slots=True)
class _StoreAway:
    """Since when the store cannot be used (seconds since the epoch; None: it can), and whether that was told."""

    since: float | None = None
    told: bool = False
    error: str = ""

    NAME = "store-away"


_OF_INTEREST = (
    ContainerKilled, DumpUploaded, DumpAlreadyStored, DumpSummarised, StoreFailed, StoreRecovered, StoreAnswered,
)  # fmt: skip


def _name(*parts: object) -> str:
    """Give a file name that the same thing always gets."""
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
