"""What a person is told: once, in time, and without holding anything up."""

from __future__ import annotations

import html
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from dumpagent.errors import BadSettings, DumpagentError, Refused, Unreachable
from dumpagent.kernel.files import replace_file
from dumpagent.notify.commands import StoreAddress
from dumpagent.notify.message import Sender
from dumpagent.notify.webhook import MakeLink, Notifier, Post, webhook
from dumpagent.observe.barrier import Barrier
from dumpagent.observe.events import Event
from dumpagent.observe.events.dumps import DumpAlreadyStored, DumpUploaded
from dumpagent.observe.events.store import StoreAnswered, StoreFailed, StoreRecovered
from dumpagent.secrets import NET
from dumpagent.setting import declared
from dumpagent.settings import Notifying
from dumpagent.store.protocol import Link
from tests.harness.events import an_event
from tests.unit.upload.conftest import Told

DUMP = {
    "path": "/mnt/dump/shop/checkout/java_pid1.20260101T120000Z.hprof", "key": "dumps/shop/checkout/java_pid1.hprof",
    "size_bytes": 3 << 30, "verdict": "complete", "reason": "whole", "cause": "oom", "crc32": "0badcafe",
    "dump_time": "2026-01-01T12:00:00Z", "oom_stack": ["com.acme.Shop.fill(Shop.java:42)"],
    "oom_thread": "http-8080-exec-1", "jvm": "21.0.8",
}  # fmt: skip


SENDER = Sender("worker-1", "prod-eu", "/mnt/dump", StoreAddress("dumps", "", "https://s3.example.com"))


class World:
    """A webhook that keeps what it gets, clocks, and a notifier that can be killed and started again."""

    def __init__(self, outbox: Path, **settings: Any) -> None:
        self.outbox, self.settings = outbox, Notifying(notify_url="http://x", **settings)
        self.got: list[dict[str, Any]] = []
        self.refusal: DumpagentError | None = None
        self.time = 1000.0
        self.told = Told()
        self.post: Post = self._post
        self.link: MakeLink | None = None
        self.notifier = self.start()

    def start(self) -> Notifier:
        self.notifier = self.new_notifier()
        self.notifier.load()
        return self.notifier

    def new_notifier(self) -> Notifier:
        return Notifier(
            self.settings, outbox=str(self.outbox), sender=SENDER,
            tell=self.told, post=self.post, save=replace_file, link=self.link, now=lambda: self.time, monotonic=lambda: self.time,
        )  # fmt: skip

    def _post(self, body: bytes) -> None:
        if self.refusal:
            raise self.refusal
        self.got.append(json.loads(body))

    def hear(self, happened: Event) -> None:
        self.notifier(happened)
        self.notifier.turn()

    def texts(self) -> list[str]:
        return [each["text"] for each in self.got]

    def after(self, seconds: float) -> None:
        self.time += seconds
        self.notifier.turn()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "outbox")


def test_a_stored_dump_is_told_with_all_that_a_developer_asks_first(world: World) -> None:
    world.notifier(an_event(DumpUploaded, **DUMP))
    world.notifier.turn()
    (text,) = world.texts()
    store = "--s3-bucket dumps --s3-endpoint-url https://s3.example.com dumps/shop/checkout/java_pid1.hprof"
    for part in ("shop/checkout", "worker-1, cluster prod-eu", "bucket dumps at https://s3.example.com", "3.0 GiB", "2026-01-01T12:00:00Z", "complete",
                 "out of memory in thread http-8080-exec-1\n",
                 "com.acme.Shop.fill(Shop.java:42)", f"dumpagent get {store}", f"dumpagent inspect --histogram {store}"):  # fmt: skip
        assert part in text


def test_json_carries_the_facts(tmp_path: Path) -> None:
    world = World(tmp_path, notify_format="json")
    world.notifier(an_event(DumpUploaded, **DUMP))
    world.notifier.turn()
    ((event,),) = [each["events"] for each in world.got]
    assert event["text"] == world.texts()[0]
    assert event["text"].endswith(f"\n```\n{event['command']}\n```"), "the lines of a message stay lines"
    assert (event["event"], event["size_bytes"], event["oom_stack"]) == (
        "dump_stored",
        3 << 30,
        DUMP["oom_stack"],
    )


def test_a_truncated_dump_begins_with_that_word(world: World) -> None:
    world.notifier(an_event(DumpUploaded, **DUMP | {"verdict": "truncated", "reason": "no END record"}))
    world.notifier.turn()
    assert world.texts()[0].startswith("TRUNCATED: ")
    assert "no END record" in world.texts()[0]


def test_names_from_the_volume_cannot_mark_up_a_message(world: World) -> None:
    """<!channel> in a directory's name must not call everybody."""
    world.notifier(an_event(DumpUploaded, **DUMP | {"path": "/mnt/dump/<!channel>&\udcff/a.hprof"}))
    world.notifier.turn()
    assert "&lt;!channel&gt;&amp;\\xff" in world.texts()[0]


def test_a_dump_that_was_there_before_is_not_told(world: World) -> None:
    world.notifier(an_event(DumpAlreadyStored, **DUMP))
    world.notifier.turn()
    assert world.got == []


def test_a_webhook_that_is_away_gets_the_message_later_once_also_after_a_restart(world: World) -> None:
    world.refusal = Unreachable("away")
    world.notifier(an_event(DumpUploaded, **DUMP))
    world.notifier.turn()
    world.after(60)
    world.start()  # kill -9 and again
    world.refusal = None
    world.notifier.turn()
    assert len(world.got) == 1
    world.start()
    world.after(3600)
    assert len(world.got) == 1


def test_retries_come_slower_and_slower_and_the_log_is_told_once(world: World) -> None:
    attempts = 0

    def post(_body: bytes) -> None:
        nonlocal attempts
        attempts += 1
        raise Unreachable("away")

    world.post = post
    world.start()
    world.notifier(an_event(DumpUploaded, **DUMP))
    for _ in range(600):
        world.after(1)
    assert 5 <= attempts <= 12
    assert world.told.names() == ["notify_failed"]


def test_a_message_that_the_webhook_refuses_is_dropped_and_the_next_goes_out(world: World) -> None:
    world.refusal = Refused("NOTIFY_URL answered 400")
    world.notifier(an_event(DumpUploaded, **DUMP))
    world.notifier.turn()
    world.refusal = None
    world.notifier(an_event(DumpUploaded, **DUMP | {"key": "other"}))
    world.after(10)
    assert len(world.got) == 1
    assert world.told.names() == ["notify_failed", "notify_recovered"]


def test_a_crash_loop_is_a_few_messages_not_hundreds_and_none_is_lost(world: World) -> None:
    for number in range(200):
        world.notifier(an_event(DumpUploaded, **DUMP | {"key": f"dump-{number}"}))
    world.notifier.turn()
    assert len(world.got) <= 11
    assert all(any(f" dump-{number}\n" in text for text in world.texts()) for number in range(200))


def test_a_store_is_told_after_some_minutes_and_its_return_once_also_over_a_restart(world: World) -> None:
    world.hear(an_event(StoreFailed, error="the store answered 403 InvalidAccessKeyId"))
    world.after(299)
    assert world.got == []
    world.after(2)
    world.start()
    world.hear(an_event(StoreFailed, error="the store answered 403 InvalidAccessKeyId"))
    world.after(600)
    (away,) = world.texts()
    assert "cannot be used from worker-1 for 5 min" in away
    assert "InvalidAccessKeyId" in away
    world.hear(an_event(StoreRecovered))
    world.after(1)
    world.hear(an_event(StoreAnswered))
    world.after(1)
    assert len(world.got) == 2
    assert "can be used again" in world.texts()[1]


def test_a_store_that_was_away_for_a_moment_is_not_told(world: World) -> None:
    world.hear(an_event(StoreFailed, error="slow down"))
    world.after(100)
    world.notifier(an_event(DumpUploaded, **DUMP))
    world.after(1000)
    assert len(world.got) == 1


def test_rubbish_in_the_outbox_is_as_if_it_were_not_there(world: World) -> None:
    for name, content in (
        ("a", b"{"),
        ("b", b"[]"),
        ("c", b'{"version": 9}'),
        ("store-away", b'{"version": 1}'),
    ):
        (world.outbox / name).write_bytes(content)
    world.start().turn()
    assert world.got == []


def test_an_outbox_that_cannot_be_written_loses_nothing_while_the_daemon_runs(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    world = World(tmp_path / "file" / "outbox")
    world.notifier(an_event(DumpUploaded, **DUMP))
    world.notifier.turn()
    assert len(world.got) == 1


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))  # type: ignore[attr-defined]
        self.send_response(int(self.path.rpartition("/")[2]))
        self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hook() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), _Hook)
    server.bodies = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("status", "raised"), [(200, None), (204, None), (302, Refused), (404, Refused), (429, Unreachable), (500, Unreachable)]
)  # fmt: skip
def test_the_webhooks_answer_decides_and_its_url_is_in_no_error(
    hook: HTTPServer, status: int, raised: type[DumpagentError] | None
) -> None:
    url = f"http://127.0.0.1:{hook.server_port}/services/T0/SECRET/{status}"
    if raised is None:
        webhook(url)(b"{}")
    else:
        with pytest.raises(raised) as caught:
            webhook(url)(b"{}")
        assert "SECRET" not in f"{caught.value} {caught.value.hint}"
    assert hook.bodies == [b"{}"]  # type: ignore[attr-defined]


def test_nobody_at_the_other_end_is_unreachable_without_the_url() -> None:
    with pytest.raises(Unreachable) as caught:
        webhook("http://127.0.0.1:1/SECRET")(b"{}")
    assert "SECRET" not in str(caught.value)


def test_a_bad_notify_url_is_refused_without_showing_it() -> None:
    setting, _ = declared(Notifying)["notify_url"]
    with pytest.raises(BadSettings) as caught:
        setting.parse("htp://hooks/SECRET")
    assert "SECRET" not in str(caught.value)


def test_what_waits_over_a_restart_is_told_in_the_order_in_which_it_happened(world: World) -> None:
    world.refusal = Unreachable("away")
    keys = [f"dump-{number}" for number in range(30)]
    for key in keys[:20]:
        world.notifier(an_event(DumpUploaded, **DUMP | {"key": key}))
    world.notifier.turn()
    world.start()
    for key in keys[20:]:
        world.notifier(an_event(DumpUploaded, **DUMP | {"key": key}))
    world.notifier.turn()
    world.start()
    world.refusal = None
    world.after(1000)
    text = "\n".join(world.texts())
    assert sorted(keys, key=lambda key: text.index(f" {key}\n")) == keys


def test_a_waiting_agent_leaves_the_outbox_to_the_one_that_owns_it(world: World) -> None:
    world.refusal = Unreachable("away")
    world.hear(an_event(DumpUploaded, **DUMP))
    world.refusal = None
    owned, told = threading.Event(), threading.Event()

    def post(body: bytes) -> None:
        world._post(body)
        told.set()

    world.post = post
    waiting = world.new_notifier()
    thread = waiting.start(told.is_set, owned=owned, barrier=Barrier(world.told))
    assert not told.wait(0.5)
    assert world.got == []
    owned.set()
    assert told.wait(10)
    thread.join(10)
    assert len(world.got) == 1


LINK = "https://s3.example.com/dumps/k?X-Amz-Credential=AKIA%2F1&X-Amz-Security-Token=unlikely-session-token&X-Amz-Signature=0123456789abcdef"


def a_link(key: str) -> Link:
    return Link(f"{LINK}&key={key}", until=5000.0)


@pytest.mark.parametrize("form", ["slack", "json", "teams", "cloudevents"])
def test_a_link_arrives_whole_in_every_format_and_is_nowhere_else(tmp_path: Path, form: str) -> None:
    NET.learn("unlikely-session-token")  # as the agent's own session token is
    world = World(tmp_path, notify_format=form)
    world.link = a_link
    world.start()
    world.refusal = Unreachable("away")
    world.hear(an_event(DumpUploaded, **DUMP))
    kept = [path.read_text() for path in tmp_path.iterdir()]
    assert kept, "the message waits on the volume"
    assert not any("X-Amz" in text or "Signature" in text for text in kept)
    world.refusal = None
    world.time += 1000
    world.notifier.turn()
    sent = json.dumps(world.got)
    assert f"{LINK}&key={DUMP['key']}" in html.unescape(sent)
    assert "1970-01-01T01:23:20Z" in sent, "until when it holds"
    assert "Signature" not in repr(world.told.__dict__)


def test_a_link_that_cannot_be_made_holds_up_no_message(tmp_path: Path) -> None:
    def fail(_key: str) -> Link:
        raise Refused("no credentials were found")

    world = World(tmp_path)
    world.link = fail
    world.start()
    world.hear(an_event(DumpUploaded, **DUMP))
    assert "no link could be made: no credentials were found" in world.got[0]["text"]


def test_a_message_of_many_dumps_has_ten_links(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.link = a_link
    world.start()
    world.refusal = Unreachable("away")
    for number in range(40):
        world.hear(an_event(DumpUploaded, **{**DUMP, "key": f"k{number}"}))
    world.refusal = None
    for _ in range(20):
        world.time += 5
        world.notifier.turn()
    assert max(told["text"].count("X-Amz-Signature") for told in world.got) == 10


def test_without_presign_for_there_is_no_link(tmp_path: Path) -> None:
    assert Notifying().presign_for_s == 0
    presign = declared(Notifying)["presign_for_s"][0]
    assert presign.parse("off") == 0
    assert presign.parse("7d") == 604800
    with pytest.raises(BadSettings, match="PRESIGN_FOR is '8d'; accepted: off, or 0 to 604800"):
        presign.parse("8d")
    world = World(tmp_path)
    world.hear(an_event(DumpUploaded, **DUMP))
    assert "download" not in world.got[0]["text"]
